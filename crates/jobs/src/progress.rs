use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::id::JobId;
use crate::record::Totals;

/// How far the shards are that this process works on. Only for show: what counts is what is done.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    shards: Mutex<BTreeMap<(JobId, u64), Totals>>,
    changed: watch::Sender<()>,
}

/// A shard's entry, for as long as it is worked on.
pub(crate) struct ShardProgress<'a> {
    progress: &'a Progress,
    key: (JobId, u64),
}

impl Progress {
    pub(crate) fn begin(&self, id: JobId, shard: u64) -> ShardProgress<'_> {
        self.shards().insert((id, shard), Totals::default());
        ShardProgress { progress: self, key: (id, shard) }
    }

    /// Those of a job.
    pub(crate) fn of(&self, id: JobId) -> Vec<(u64, Totals)> {
        let shards = self.shards();
        shards.range((id, 0)..=(id, u64::MAX)).map(|((_, shard), totals)| (*shard, *totals)).collect()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn shards(&self) -> MutexGuard<'_, BTreeMap<(JobId, u64), Totals>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ShardProgress<'_> {
    /// One more item has its result.
    pub(crate) fn add(&self, totals: Totals) {
        if let Some(sum) = self.progress.shards().get_mut(&self.key) {
            *sum += totals;
        }
        self.progress.changed.send_replace(());
    }
}

impl Drop for ShardProgress<'_> {
    fn drop(&mut self) {
        self.progress.shards().remove(&self.key);
    }
}
