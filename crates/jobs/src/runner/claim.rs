use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::sleep;
use windlass_store::{Condition, Operation, Revision};

use super::scan::Scan;
use super::{output, shard};
use crate::context::Context;
use crate::end::end;
use crate::error::JobsError;
use crate::execute::Execute;
use crate::id::JobId;
use crate::keys::Keys;
use crate::record::{Outcome, Record};
use crate::tenure::Tenure;

/// How long work that failed is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// What can be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Work {
    pub(super) job: JobId,
    pub(super) part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Shard(u64),
    /// Once all shards are done.
    Output,
}

impl Work {
    /// Reads the end of a claim's key.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (job, part) = text.split_once('/')?;
        let part = if part == "output" { Part::Output } else { Part::Shard(part.parse().ok()?) };
        Some(Self { job: job.parse().ok()?, part })
    }

    pub(super) fn key(self, keys: &Keys) -> String {
        match self.part {
            Part::Shard(shard) => keys.shard_claim(self.job, shard),
            Part::Output => keys.output_claim(self.job),
        }
    }
}

/// Claims work, unless someone else has, it is done, or the job has ended.
pub(super) async fn claim(
    context: &Context,
    tenure: &Tenure,
    scan: &Scan,
    work: Work,
) -> Result<Option<Revision>, JobsError> {
    let Some((_, revision)) = scan.job(work.job) else { return Ok(None) };
    let keys = &context.keys;
    let key = work.key(keys);
    let mut conditions =
        vec![Condition::Absent(key.clone()), Condition::Unchanged(keys.record(work.job), revision)];
    if let Part::Shard(shard) = work.part {
        conditions.push(Condition::Absent(keys.done(work.job, shard)));
    }
    let put = Operation::Put { key, value: tenure.owner.clone().into(), lease: Some(tenure.lease()) };
    Ok(context.store.commit(conditions, vec![put]).await?)
}

/// Claimed work. It counts only as long as the claim is there.
pub(super) struct Claim {
    pub(super) context: Arc<Context>,
    pub(super) record: Arc<Record>,
    pub(super) record_revision: Revision,
    pub(super) work: Work,
    /// Nobody else's, ever.
    pub(super) revision: Revision,
}

impl Claim {
    /// Does the work, and ends the job if it never can be done. What fails otherwise is begun again later.
    pub(super) async fn work(&self, execute: &dyn Execute, permits: &Semaphore) {
        let worked = match self.work.part {
            Part::Shard(shard) => shard::run(self, shard, execute, permits).await,
            Part::Output => output::run(self).await,
        };
        let Err(error) = worked else { return };
        let (job, part) = (self.record.id, self.work.part);
        if error.is_final() {
            tracing::error!(%job, ?part, %error, "a job failed");
            if let Err(error) = end(&self.context, job, Outcome::Failed, &error.to_string()).await {
                tracing::warn!(%job, %error, "a failed job could not be ended");
            }
        } else {
            tracing::warn!(%job, ?part, %error, "a part of a job is tried again later");
        }
        sleep(PAUSE).await;
    }

    /// Leaves the work to whoever can do it, or to later.
    pub(super) async fn give_up(&self) -> Result<(), JobsError> {
        let delete = Operation::Delete(self.work.key(&self.context.keys));
        self.context.store.commit(self.conditions(), vec![delete]).await?;
        Ok(())
    }

    /// Holds as long as the claim is there and the job has not ended.
    pub(super) fn conditions(&self) -> Vec<Condition> {
        let keys = &self.context.keys;
        vec![
            Condition::Unchanged(self.work.key(keys), self.revision),
            Condition::Unchanged(keys.record(self.record.id), self.record_revision),
        ]
    }
}
