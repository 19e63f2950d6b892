use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::StoreError;

/// Most conditions, and most operations, of one commit; etcd's limit.
pub const MAX_OPERATIONS: usize = 128;

/// A moment in a store's history; grows with every commit. The first commit makes it at least 1.
pub type Revision = u64;

/// Names a lease of one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub i64);

/// A key's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Text, by custom a path such as `/windlass/v1/main/workers/7`.
    pub key: String,
    /// Any bytes; at most about a megabyte, which is etcd's limit.
    pub value: Vec<u8>,
    /// The commit that wrote it.
    pub revision: Revision,
}

/// Which of a prefix's entries to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Only keys behind this one.
    pub after: Option<String>,
    /// Most entries; 0 for all.
    pub limit: usize,
}

impl Page {
    /// All entries.
    pub const ALL: Self = Self { after: None, limit: 0 };

    /// Most entries, as a number.
    pub(crate) fn most(&self) -> usize {
        if self.limit == 0 { usize::MAX } else { self.limit }
    }
}

/// The entries there were at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// In order of keys.
    pub entries: Vec<Entry>,
    /// Watching from here misses nothing and repeats nothing.
    pub revision: Revision,
}

/// What must hold for a commit to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The key has no value.
    Absent(String),
    /// The key has a value.
    Present(String),
    /// The key's value was last written by this commit.
    Unchanged(String, Revision),
}

/// A part of a commit. A key that is put may be named by no other part of the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Writes a value, which lives as long as the lease if there is one.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Vec<u8>,
        /// Deletes it when it ends.
        lease: Option<LeaseId>,
    },
    /// Deletes a key; one without a value is left alone.
    Delete(String),
    /// Deletes all keys that begin with this.
    DeletePrefix(String),
}

/// What happened to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It has a new value.
    Put(Entry),
    /// It has none any more: deleted, or its lease ended.
    Deleted(String),
}

impl Change {
    /// The key it happened to.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Deleted(key) => key,
        }
    }

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        let value = if let Self::Put(entry) = self { entry.value.len() } else { 0 };
        self.key().len() + value
    }
}

/// Changes as they happen. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    changes: mpsc::Receiver<Result<Change, StoreError>>,
}

impl Watch {
    /// A watch that tells what is sent.
    pub fn new(changes: mpsc::Receiver<Result<Change, StoreError>>) -> Self {
        Self { changes }
    }

    /// The next change. After an error, and after `Unavailable` for a watch whose store is gone, list and watch again.
    pub async fn next(&mut self) -> Result<Change, StoreError> {
        let gone = || StoreError::Unavailable { reason: "the watch ended".into() };
        self.changes.recv().await.unwrap_or_else(|| Err(gone()))
    }
}

/// A small, consistent store. Commits are atomic, and everyone sees them in one order.
#[async_trait]
pub trait Store: Debug + Send + Sync {
    /// The key's entry, if it has a value.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// The entries of all keys that begin with `prefix`.
    async fn list(&self, prefix: &str, page: Page) -> Result<Listing, StoreError>;

    /// Does all operations if all conditions hold, and else nothing; the commit's revision, if it happened.
    /// At most [`MAX_OPERATIONS`] of each.
    async fn commit(
        &self,
        conditions: Vec<Condition>,
        operations: Vec<Operation>,
    ) -> Result<Option<Revision>, StoreError>;

    /// A lease that ends, with its keys, unless renewed within `time_to_live` (whole seconds in etcd, rounded up).
    async fn grant(&self, time_to_live: Duration) -> Result<LeaseId, StoreError>;

    /// Gives the lease its whole time again; `LeaseLost` if it has ended.
    async fn renew(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Ends a lease and deletes its keys; one that has ended is left alone.
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// All changes to keys that begin with `prefix`, of commits after `after`.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError>;
}
