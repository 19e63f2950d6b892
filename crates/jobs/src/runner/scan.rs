use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use windlass_store::Revision;

use super::claim::{Part, Work};
use crate::context::Context;
use crate::done::DoneShards;
use crate::error::JobsError;
use crate::execute::Execute;
use crate::id::JobId;
use crate::record::Record;

/// How often it is looked what is done of a job whose model nobody serves, and of which perhaps only the output is missing.
const LOOK_AT_WAITING: Duration = Duration::from_secs(4);

/// What there is to do, as of the last look.
#[derive(Default)]
pub(super) struct Scan {
    jobs: BTreeMap<JobId, OpenJob>,
    /// Revision and owner of each claim.
    claims: BTreeMap<Work, (Revision, String)>,
}

/// A job that has not ended. Its record never changes before its end.
struct OpenJob {
    record: Arc<Record>,
    revision: Revision,
    done: DoneShards,
    /// When it was looked what is done.
    looked: Option<Instant>,
}

impl Scan {
    /// Looks at which jobs are open and what is claimed.
    pub(super) async fn refresh(&mut self, context: &Context) -> Result<(), JobsError> {
        let prefix = context.keys.claims();
        self.claims.clear();
        for entry in context.list(&prefix, None).await? {
            let work = Work::parse(&entry.key[prefix.len()..]);
            let work = work.ok_or_else(|| JobsError::damaged(&entry.key, &"it is no claim"))?;
            self.claims.insert(work, (entry.revision, String::from_utf8_lossy(&entry.value).into_owned()));
        }
        let prefix = context.keys.open();
        let open = context.list(&prefix, None).await?;
        let open: Vec<JobId> =
            open.iter().filter_map(|entry| entry.key[prefix.len()..].parse().ok()).collect();
        self.jobs.retain(|id, _| open.binary_search(id).is_ok());
        for id in open {
            if !self.jobs.contains_key(&id) {
                self.add(context, id).await?;
            }
        }
        Ok(())
    }

    async fn add(&mut self, context: &Context, id: JobId) -> Result<(), JobsError> {
        match context.record(id).await {
            Ok((record, _)) if record.end.is_some() => {}
            Ok((record, revision)) => {
                let (record, done) = (Arc::new(record), DoneShards::default());
                let job = OpenJob { record, revision, done, looked: None };
                self.jobs.insert(id, job);
            }
            Err(error @ (JobsError::NotFound { .. } | JobsError::Damaged { .. })) => {
                tracing::error!(job = %id, %error, "a job is passed over");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// An open job's record and its revision.
    pub(super) fn job(&self, id: JobId) -> Option<(Arc<Record>, Revision)> {
        self.jobs.get(&id).map(|job| (Arc::clone(&job.record), job.revision))
    }

    /// The revision of a claim.
    pub(super) fn claim(&self, work: &Work) -> Option<Revision> {
        self.claims.get(work).map(|(revision, _)| *revision)
    }

    /// All claims of one owner.
    pub(super) fn claims_of(&self, owner: &str) -> Vec<(Work, Revision)> {
        let own = self.claims.iter().filter(|(_, (_, of))| of == owner);
        own.map(|(work, (revision, _))| (*work, *revision)).collect()
    }

    /// At most `room` things to do that nobody has claimed: of jobs of the highest priority, of these the oldest. Shards whose
    /// model nobody serves are passed over.
    pub(super) async fn free(
        &mut self,
        context: &Context,
        execute: &dyn Execute,
        room: usize,
    ) -> Result<Vec<Work>, JobsError> {
        let mut order: Vec<_> =
            self.jobs.iter().map(|(id, job)| (Reverse(job.record.priority), *id)).collect();
        order.sort_unstable();
        let mut free = Vec::new();
        for (_, id) in order {
            if free.len() >= room {
                break;
            }
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            let is_known = job.looked.is_some_and(|looked| looked.elapsed() < LOOK_AT_WAITING);
            if is_known && !execute.can_answer(&job.record.model) {
                continue;
            }
            job.looked = Some(Instant::now());
            job.done.refresh(context, id).await?;
            let is_free = |part: &Part| !self.claims.contains_key(&Work { job: id, part: *part });
            if job.done.count() == job.record.shards() {
                free.extend(Some(Part::Output).filter(is_free).map(|part| Work { job: id, part }));
                continue;
            }
            if !execute.can_answer(&job.record.model) {
                continue;
            }
            let undone = (job.done.next()..job.record.shards()).filter(|shard| !job.done.contains(*shard));
            let parts = undone.map(Part::Shard).filter(is_free).take(room - free.len());
            free.extend(parts.map(|part| Work { job: id, part }));
        }
        Ok(free)
    }
}
