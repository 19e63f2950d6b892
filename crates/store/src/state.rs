use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::store::{MAX_OPERATIONS, Watch};
use crate::{Change, Condition, Entry, LeaseId, Listing, Operation, Page, Revision, StoreError};

/// Changes kept for watches that begin in the past, and the most bytes of values among them.
const HISTORY: usize = 10_000;
const HISTORY_BYTES: usize = 16 << 20;
/// Changes a watch may lie behind before it is ended.
const WATCH_BUFFER: usize = 10_000;

/// Where a state keeps its values.
pub trait Values: Debug + Send + 'static {
    /// Whether calls wait for a disk, and so belong on a thread that may.
    const BLOCKS: bool;

    /// The key's entry, if it has a value.
    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// Entries of a prefix, in order of keys.
    fn list(&self, prefix: &str, page: &Page) -> Result<Vec<Entry>, StoreError>;

    /// The keys that begin with `prefix`, in order.
    fn keys(&self, prefix: &str) -> Result<Vec<String>, StoreError>;

    /// Does all of this or nothing. What was done is not lost afterwards, if anything here outlives the process.
    fn write(&mut self, revision: Revision, writes: &[Write]) -> Result<(), StoreError>;
}

/// What becomes of a key.
#[derive(Debug)]
pub enum Write {
    /// It gets this value, for as long as the lease lives if there is one.
    Put(Entry, Option<LeaseId>),
    /// It loses its value.
    Delete(String),
}

/// The rules of a store that lives in one process: commits, leases, watches.
#[derive(Debug)]
pub(crate) struct State<V> {
    values: V,
    revision: Revision,
    leases: BTreeMap<LeaseId, Lease>,
    /// The lease of each key that has one.
    owners: BTreeMap<String, LeaseId>,
    granted: i64,
    history: VecDeque<(Revision, Change)>,
    history_bytes: usize,
    /// Changes up to here may be missing from the history.
    forgotten: Revision,
    watches: Vec<(String, mpsc::Sender<Result<Change, StoreError>>)>,
}

#[derive(Debug)]
struct Lease {
    time_to_live: Duration,
    end: Instant,
    keys: BTreeSet<String>,
}

impl<V: Values> State<V> {
    /// Values as they were left at this revision, under no lease.
    pub(crate) fn new(values: V, revision: Revision) -> Self {
        Self {
            values,
            revision,
            leases: BTreeMap::new(),
            owners: BTreeMap::new(),
            granted: 0,
            history: VecDeque::new(),
            history_bytes: 0,
            forgotten: revision,
            watches: Vec::new(),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.values.get(key)
    }

    pub(crate) fn list(&self, prefix: &str, page: &Page) -> Result<Listing, StoreError> {
        Ok(Listing { entries: self.values.list(prefix, page)?, revision: self.revision })
    }

    pub(crate) fn commit(
        &mut self,
        conditions: &[Condition],
        operations: Vec<Operation>,
    ) -> Result<Option<Revision>, StoreError> {
        check(conditions, &operations)?;
        for condition in conditions {
            if !self.holds(condition)? {
                return Ok(None);
            }
        }
        let writes = self.writes(operations)?;
        self.write(writes)?;
        Ok(Some(self.revision))
    }

    pub(crate) fn grant(&mut self, time_to_live: Duration, now: Instant) -> LeaseId {
        self.granted += 1;
        let lease = LeaseId(self.granted);
        self.leases.insert(lease, Lease { time_to_live, end: now + time_to_live, keys: BTreeSet::new() });
        lease
    }

    pub(crate) fn renew(&mut self, lease: LeaseId, now: Instant) -> Result<(), StoreError> {
        let lease = self.leases.get_mut(&lease).ok_or(StoreError::LeaseLost)?;
        lease.end = now + lease.time_to_live;
        Ok(())
    }

    /// When the lease ends unless it is renewed; `None` if it has ended.
    pub(crate) fn end(&self, lease: LeaseId) -> Option<Instant> {
        self.leases.get(&lease).map(|lease| lease.end)
    }

    pub(crate) fn revoke(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        if let Some(Lease { keys, .. }) = self.leases.get(&lease) {
            let deletes = keys.iter().cloned().map(Write::Delete).collect();
            self.write(deletes)?;
            self.leases.remove(&lease);
        }
        Ok(())
    }

    /// Ends the leases whose time is up.
    pub(crate) fn expire(&mut self, now: Instant) -> Result<(), StoreError> {
        let over = self.leases.iter().filter(|(_, lease)| lease.end <= now).map(|(id, _)| *id);
        over.collect::<Vec<_>>().into_iter().try_for_each(|lease| self.revoke(lease))
    }

    pub(crate) fn watch(&mut self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        if after < self.forgotten {
            return Err(StoreError::Compacted { revision: after });
        }
        let (sender, receiver) = mpsc::channel(WATCH_BUFFER + HISTORY);
        for (_, change) in self.history.iter().filter(|(revision, _)| *revision > after) {
            if change.key().starts_with(prefix) {
                let _ = sender.try_send(Ok(change.clone()));
            }
        }
        self.watches.push((prefix.to_owned(), sender));
        Ok(Watch::new(receiver))
    }

    fn holds(&self, condition: &Condition) -> Result<bool, StoreError> {
        Ok(match condition {
            Condition::Absent(key) => self.values.get(key)?.is_none(),
            Condition::Present(key) => self.values.get(key)?.is_some(),
            Condition::Unchanged(key, revision) => {
                self.values.get(key)?.is_some_and(|entry| entry.revision == *revision)
            }
        })
    }

    /// What operations come to: deletes only of what is there, each once.
    fn writes(&self, operations: Vec<Operation>) -> Result<Vec<Write>, StoreError> {
        let mut writes = Vec::new();
        let mut deleted = BTreeSet::new();
        let revision = self.revision + 1;
        for operation in operations {
            match operation {
                Operation::Put { key, value, lease } => {
                    if lease.is_some_and(|lease| !self.leases.contains_key(&lease)) {
                        return Err(StoreError::LeaseLost);
                    }
                    writes.push(Write::Put(Entry { key, value, revision }, lease));
                }
                Operation::Delete(key) => deleted.extend(self.values.get(&key)?.map(|entry| entry.key)),
                Operation::DeletePrefix(prefix) => deleted.extend(self.values.keys(&prefix)?),
            }
        }
        writes.extend(deleted.into_iter().map(Write::Delete));
        Ok(writes)
    }

    fn write(&mut self, writes: Vec<Write>) -> Result<(), StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        self.values.write(self.revision + 1, &writes)?;
        self.revision += 1;
        for write in writes {
            self.set_owner(&write);
            self.tell(write.into());
        }
        Ok(())
    }

    fn set_owner(&mut self, write: &Write) {
        let (key, lease) = match write {
            Write::Put(entry, lease) => (&entry.key, *lease),
            Write::Delete(key) => (key, None),
        };
        if let Some(former) = self.owners.remove(key).and_then(|former| self.leases.get_mut(&former)) {
            former.keys.remove(key);
        }
        if let Some((id, lease)) = lease.and_then(|id| Some((id, self.leases.get_mut(&id)?))) {
            lease.keys.insert(key.clone());
            self.owners.insert(key.clone(), id);
        }
    }

    fn tell(&mut self, change: Change) {
        // A watch that is too far behind is dropped, and so ends with an error.
        self.watches.retain(|(prefix, watch)| {
            !change.key().starts_with(prefix) || watch.try_send(Ok(change.clone())).is_ok()
        });
        self.watches.retain(|(_, watch)| !watch.is_closed());
        self.history_bytes += change.bytes();
        self.history.push_back((self.revision, change));
        while self.history.len() > HISTORY || self.history_bytes > HISTORY_BYTES {
            let Some((revision, change)) = self.history.pop_front() else { return };
            self.history_bytes -= change.bytes();
            self.forgotten = revision;
        }
    }
}

impl From<Write> for Change {
    fn from(write: Write) -> Self {
        match write {
            Write::Put(entry, _) => Self::Put(entry),
            Write::Delete(key) => Self::Deleted(key),
        }
    }
}

/// Refuses what etcd would refuse, so that no code works with one store and fails with another.
fn check(conditions: &[Condition], operations: &[Operation]) -> Result<(), StoreError> {
    let refused = |reason| Err(StoreError::Refused { reason });
    let most = conditions.len().max(operations.len());
    if most > MAX_OPERATIONS {
        return refused(format!("a commit of {most} conditions or operations: use at most {MAX_OPERATIONS}"));
    }
    let deletes = |key: &str| {
        operations.iter().any(|operation| match operation {
            Operation::Put { .. } => false,
            Operation::Delete(deleted) => deleted == key,
            Operation::DeletePrefix(prefix) => key.starts_with(prefix),
        })
    };
    let mut put = BTreeSet::new();
    for operation in operations {
        let Operation::Put { key, .. } = operation else { continue };
        if !put.insert(key) || deletes(key) {
            return refused(format!("'{key}' is named twice in one commit: name it once"));
        }
    }
    Ok(())
}
