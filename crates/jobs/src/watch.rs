//! A job as it is, and as it goes on.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{Stream, try_unfold};
use tokio::sync::watch;
use tokio::time::sleep;
use windlass_proto::v1::Job;
use windlass_store::Page;

use crate::context::Context;
use crate::done::DoneShards;
use crate::error::JobsError;
use crate::id::JobId;
use crate::party::Party;
use crate::pulse::Beat;
use crate::record::{End, Record};

/// Least time from one message to the next.
const PACE: Duration = Duration::from_millis(100);

/// The job as it is now.
pub(crate) async fn describe(context: &Context, party: &Party, id: JobId) -> Result<Job, JobsError> {
    let (record, _) = context.record_for(party, id).await?;
    look(context, &record, &mut DoneShards::default()).await
}

/// The same of a record that was just read; `done` is what was known of its shards.
pub(crate) async fn look(
    context: &Context,
    record: &Record,
    done: &mut DoneShards,
) -> Result<Job, JobsError> {
    if let Some(End { totals: Some(totals), .. }) = record.end {
        return Ok(record.describe(totals, true));
    }
    // Before the rest: a shard that becomes done in between is counted as done then.
    let in_progress = context.progress.of(record.id);
    done.refresh(context, record.id).await?;
    if record.end.is_some() {
        return Ok(record.describe(done.totals(), true));
    }
    let claims = context.keys.claims_of(record.id);
    let claimed = async || context.store.list(&claims, Page { after: None, limit: 1 }).await;
    let started = done.count() > 0 || !claimed().await?.entries.is_empty();
    let in_progress = in_progress.into_iter().filter(|(shard, _)| !done.contains(*shard));
    let totals = in_progress.fold(done.totals(), |sum, (_, totals)| sum + totals);
    Ok(record.describe(totals, started))
}

/// The job at once and after every change, until it has ended.
pub(crate) fn watch(
    context: Arc<Context>,
    party: Arc<Party>,
    id: JobId,
) -> impl Stream<Item = Result<Job, JobsError>> + Send + use<> {
    let beat = context.pulse.beat();
    let progress = context.progress.subscribe();
    let watching = Watching { context, party, id, beat, progress, done: DoneShards::default(), last: None };
    try_unfold(watching, |mut watching| async move {
        let job = watching.next().await?;
        Ok(job.map(|job| (job, watching)))
    })
}

struct Watching {
    context: Arc<Context>,
    party: Arc<Party>,
    id: JobId,
    beat: Beat,
    progress: watch::Receiver<()>,
    done: DoneShards,
    last: Option<Job>,
}

impl Watching {
    /// The job when it is another than last time; `None` after its end.
    async fn next(&mut self) -> Result<Option<Job>, JobsError> {
        if self.last.as_ref().is_some_and(|job| job.ended_ms.is_some()) {
            return Ok(None);
        }
        loop {
            let (record, _) = self.context.record_for(&self.party, self.id).await?;
            let job = look(&self.context, &record, &mut self.done).await?;
            if self.last.as_ref() != Some(&job) {
                self.last = Some(job.clone());
                return Ok(Some(job));
            }
            sleep(PACE).await;
            tokio::select! {
                biased;
                () = self.beat.next() => {}
                _ = self.progress.changed() => {}
            }
        }
    }
}
