//! Works on open jobs: claims shards, has their items answered, commits their results, writes outputs.

mod claim;
mod output;
mod scan;
mod shard;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use windlass_store::Revision;

use crate::backoff::Backoff;
use crate::context::Context;
use crate::error::JobsError;
use crate::execute::Execute;
use crate::submission::ITEMS_PER_SHARD;
use crate::tenure::Tenure;
use claim::{Claim, Work};
use scan::Scan;

/// Least time from one look at all jobs to the next.
const PACE: Duration = Duration::from_millis(20);
/// Shards that are worked on at once beyond what fills the bound of items, so that the last items of one do not run alone.
const SPARE_SHARDS: usize = 1;

/// Works until `shutdown`, under one lease after another.
pub(crate) async fn run(
    context: &Arc<Context>,
    execute: &Arc<dyn Execute>,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = pin!(shutdown);
    let mut backoff = Backoff::new(1);
    loop {
        let begin = async {
            loop {
                match Tenure::begin(&context.store, context.config.lease).await {
                    Ok(tenure) => return tenure,
                    Err(error) => tracing::warn!(%error, "jobs wait for the store"),
                }
                backoff.pause().await;
            }
        };
        let tenure = tokio::select! {
            tenure = begin => tenure,
            () = &mut shutdown => return,
        };
        backoff = Backoff::new(1);
        tokio::select! {
            // Nothing is begun under a lease that is over.
            biased;
            () = tenure.lost() => tracing::warn!("the lease of this server's jobs is over: others may go on with them"),
            () = &mut shutdown => return tenure.end().await,
            () = Runner::new(context, execute, &tenure).run() => {}
        }
    }
}

/// Works under one lease. Dropping it gives up what it works on.
struct Runner<'a> {
    context: &'a Arc<Context>,
    execute: &'a Arc<dyn Execute>,
    tenure: &'a Tenure,
    permits: Arc<Semaphore>,
    scan: Scan,
    running: BTreeMap<Work, (Revision, AbortHandle)>,
    tasks: JoinSet<Work>,
}

impl<'a> Runner<'a> {
    fn new(context: &'a Arc<Context>, execute: &'a Arc<dyn Execute>, tenure: &'a Tenure) -> Self {
        Self {
            context,
            execute,
            tenure,
            permits: Arc::new(Semaphore::new(context.config.concurrency)),
            scan: Scan::default(),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    async fn run(mut self) {
        let mut beat = self.context.pulse.beat();
        let mut backoff = Backoff::new(2);
        loop {
            match self.look().await {
                Ok(()) => backoff = Backoff::new(2),
                Err(error) => {
                    tracing::warn!(%error, "jobs cannot be looked at now");
                    backoff.pause().await;
                }
            }
            sleep(PACE).await;
            tokio::select! {
                // What ended meanwhile is taken in below, with the same look.
                biased;
                () = beat.next() => {}
                Some(ended) = self.tasks.join_next() => self.ended(ended.ok()),
            }
            while let Some(ended) = self.tasks.try_join_next() {
                self.ended(ended.ok());
            }
        }
    }

    /// `None`: it was aborted.
    fn ended(&mut self, work: Option<Work>) {
        match work {
            Some(work) => drop(self.running.remove(&work)),
            None => self.running.retain(|_, (_, task)| !task.is_finished()),
        }
    }

    /// Stops what is no longer claimed, and begins what there is room for.
    async fn look(&mut self) -> Result<(), JobsError> {
        self.scan.refresh(self.context).await?;
        let scan = &self.scan;
        self.running.retain(|work, (claim, task)| {
            let is_claimed = scan.claim(work) == Some(*claim);
            if !is_claimed {
                task.abort();
            }
            is_claimed
        });
        // Claims that are this runner's and that nothing works on: their commit seemed to fail, or their work did.
        for (work, revision) in self.scan.claims_of(&self.tenure.owner) {
            if !self.running.contains_key(&work) {
                self.begin(work, revision);
            }
        }
        let shards = self.context.config.concurrency.div_ceil(ITEMS_PER_SHARD as usize) + SPARE_SHARDS;
        let room = shards.saturating_sub(self.running.len());
        for work in self.scan.free(self.context, self.execute.as_ref(), room).await? {
            if let Some(revision) = claim::claim(self.context, self.tenure, &self.scan, work).await? {
                self.begin(work, revision);
            }
        }
        Ok(())
    }

    fn begin(&mut self, work: Work, claim: Revision) {
        let Some((record, record_revision)) = self.scan.job(work.job) else { return };
        let held =
            Claim { context: Arc::clone(self.context), record, record_revision, work, revision: claim };
        let (execute, permits) = (Arc::clone(self.execute), Arc::clone(&self.permits));
        let task = self.tasks.spawn(async move {
            held.work(&*execute, &permits).await;
            work
        });
        self.running.insert(work, (claim, task));
    }
}
