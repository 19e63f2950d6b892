use std::collections::BTreeSet;

use crate::context::Context;
use crate::error::JobsError;
use crate::id::JobId;
use crate::record::{self, Done, Totals};

/// What is known of a job's done shards. Shards never become undone, so only what is new is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct DoneShards {
    /// All shards before this one are done.
    next: u64,
    /// Later ones that are done.
    beyond: BTreeSet<u64>,
    totals: Totals,
}

impl DoneShards {
    /// Takes note of what has become done.
    pub(crate) async fn refresh(&mut self, context: &Context, id: JobId) -> Result<(), JobsError> {
        let prefix = context.keys.done_of(id);
        let after = self.next.checked_sub(1).map(|last| context.keys.done(id, last));
        for entry in context.list(&prefix, after).await? {
            let shard = entry.key[prefix.len()..].parse();
            let shard = shard.map_err(|error| JobsError::damaged(&entry.key, &error))?;
            if !self.contains(shard) {
                self.totals += record::from_entry::<Done>(&entry)?.totals;
                self.beyond.insert(shard);
            }
        }
        while self.beyond.remove(&self.next) {
            self.next += 1;
        }
        Ok(())
    }

    /// The first shard that is not done.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn contains(&self, shard: u64) -> bool {
        shard < self.next || self.beyond.contains(&shard)
    }

    pub(crate) fn count(&self) -> u64 {
        self.next + self.beyond.len() as u64
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }
}
