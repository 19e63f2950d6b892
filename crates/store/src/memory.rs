use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::store::Store;
use crate::{Change, Condition, Entry, LeaseId, Listing, Operation, Page, Revision, StoreError, Watch};

/// Changes kept for watches that begin in the past.
const HISTORY: usize = 10_000;
/// Changes a watch may lie behind before it is ended.
const WATCH_BUFFER: usize = 10_000;

/// A store in memory, for one process and for tests; clones share it. Its time is tokio's, so that tests can stop it.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    values: BTreeMap<String, Value>,
    leases: BTreeMap<LeaseId, Lease>,
    granted: i64,
    history: VecDeque<(Revision, Change)>,
    watches: Vec<(String, mpsc::Sender<Result<Change, StoreError>>)>,
}

#[derive(Debug)]
struct Value {
    bytes: Vec<u8>,
    revision: Revision,
    lease: Option<LeaseId>,
}

#[derive(Debug)]
struct Lease {
    time_to_live: Duration,
    end: Instant,
}

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.expire(Instant::now());
        state
    }

    /// Ends the lease when its time is up, so that watches hear of it though nobody asks.
    fn end_in_time(&self, lease: LeaseId) {
        let state = Arc::downgrade(&self.state);
        tokio::spawn(async move {
            loop {
                let end = {
                    let Some(state) = state.upgrade() else { return };
                    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                    state.expire(Instant::now());
                    let Some(lease) = state.leases.get(&lease) else { return };
                    lease.end
                };
                tokio::time::sleep_until(end).await;
            }
        });
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.state().values.get(key).map(|value| value.entry(key)))
    }

    async fn list(&self, prefix: &str, page: Page) -> Result<Listing, StoreError> {
        let state = self.state();
        let behind = |key: &&String| page.after.as_ref().is_none_or(|after| *key > after);
        let limit = if page.limit == 0 { usize::MAX } else { page.limit };
        let values = state.values.range(prefix.to_owned()..);
        let of_prefix = values.take_while(|(key, _)| key.starts_with(prefix)).filter(|(key, _)| behind(key));
        let entries = of_prefix.take(limit).map(|(key, value)| value.entry(key)).collect();
        Ok(Listing { entries, revision: state.revision })
    }

    async fn commit(
        &self,
        conditions: Vec<Condition>,
        operations: Vec<Operation>,
    ) -> Result<Option<Revision>, StoreError> {
        let mut state = self.state();
        if !conditions.iter().all(|condition| state.holds(condition)) {
            return Ok(None);
        }
        state.carry_out(operations)?;
        Ok(Some(state.revision))
    }

    async fn grant(&self, time_to_live: Duration) -> Result<LeaseId, StoreError> {
        let lease = {
            let mut state = self.state();
            state.granted += 1;
            let lease = LeaseId(state.granted);
            state.leases.insert(lease, Lease { time_to_live, end: Instant::now() + time_to_live });
            lease
        };
        self.end_in_time(lease);
        Ok(lease)
    }

    async fn renew(&self, lease: LeaseId) -> Result<(), StoreError> {
        let mut state = self.state();
        let lease = state.leases.get_mut(&lease).ok_or(StoreError::LeaseLost)?;
        lease.end = Instant::now() + lease.time_to_live;
        Ok(())
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.state().end(lease);
        Ok(())
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let mut state = self.state();
        let forgotten = state.history.front().is_some_and(|(first, _)| *first > after + 1);
        if forgotten && state.history.len() == HISTORY {
            return Err(StoreError::Compacted { revision: after });
        }
        let (sender, receiver) = mpsc::channel(WATCH_BUFFER + HISTORY);
        for (_, change) in state.history.iter().filter(|(revision, _)| *revision > after) {
            if change.key().starts_with(prefix) {
                let _ = sender.try_send(Ok(change.clone()));
            }
        }
        state.watches.push((prefix.to_owned(), sender));
        Ok(Watch::new(receiver))
    }
}

impl State {
    fn holds(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Absent(key) => !self.values.contains_key(key),
            Condition::Present(key) => self.values.contains_key(key),
            Condition::Unchanged(key, revision) => {
                self.values.get(key).is_some_and(|value| value.revision == *revision)
            }
        }
    }

    fn carry_out(&mut self, operations: Vec<Operation>) -> Result<(), StoreError> {
        let leases = operations.iter().filter_map(|operation| match operation {
            Operation::Put { lease, .. } => *lease,
            Operation::Delete(_) | Operation::DeletePrefix(_) => None,
        });
        if leases.into_iter().any(|lease| !self.leases.contains_key(&lease)) {
            return Err(StoreError::LeaseLost);
        }
        self.revision += 1;
        for operation in operations {
            match operation {
                Operation::Put { key, value: bytes, lease } => {
                    let value = Value { bytes, revision: self.revision, lease };
                    let entry = value.entry(&key);
                    self.values.insert(key, value);
                    self.tell(Change::Put(entry));
                }
                Operation::Delete(key) => self.delete([key].into()),
                Operation::DeletePrefix(prefix) => {
                    let keys = self.values.keys().filter(|key| key.starts_with(&prefix)).cloned();
                    self.delete(keys.collect());
                }
            }
        }
        Ok(())
    }

    fn expire(&mut self, now: Instant) {
        let over = self.leases.iter().filter(|(_, lease)| lease.end <= now).map(|(id, _)| *id);
        over.collect::<Vec<_>>().into_iter().for_each(|lease| self.end(lease));
    }

    fn end(&mut self, lease: LeaseId) {
        if self.leases.remove(&lease).is_some() {
            let keys = self.values.iter().filter(|(_, value)| value.lease == Some(lease));
            let keys = keys.map(|(key, _)| key.clone()).collect();
            self.revision += 1;
            self.delete(keys);
        }
    }

    fn delete(&mut self, keys: BTreeSet<String>) {
        for key in keys {
            if self.values.remove(&key).is_some() {
                self.tell(Change::Deleted(key));
            }
        }
    }

    fn tell(&mut self, change: Change) {
        // A watch that is too far behind is dropped, and so ends with an error.
        self.watches.retain(|(prefix, watch)| {
            !change.key().starts_with(prefix) || watch.try_send(Ok(change.clone())).is_ok()
        });
        self.history.push_back((self.revision, change));
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }
}

impl Value {
    fn entry(&self, key: &str) -> Entry {
        Entry { key: key.to_owned(), value: self.bytes.clone(), revision: self.revision }
    }
}

impl Change {
    /// The key it happened to.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Deleted(key) => key,
        }
    }
}
