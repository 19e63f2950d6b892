use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use windlass_store::{
    Condition, Entry, LeaseId, Listing, MemoryStore, Operation, Page, Revision, Store, StoreError, Watch,
};

use crate::dice::Dice;

/// A store that takes its time, and sometimes cannot be reached: before it did what was asked, or after.
#[derive(Debug)]
pub(crate) struct FlakyStore {
    pub(crate) store: MemoryStore,
    pub(crate) dice: Arc<Dice>,
    pub(crate) fault_percent: u64,
    /// So many commits that write a record are not answered.
    pub(crate) unanswered: Arc<AtomicU32>,
}

impl FlakyStore {
    async fn around<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.dice.wait(10).await;
        let fault = self.dice.happens(self.fault_percent);
        if fault && self.dice.happens(50) {
            return Err(StoreError::Unavailable { reason: "never arrived".into() });
        }
        let answer = call.await;
        self.dice.wait(10).await;
        if fault { Err(StoreError::Unavailable { reason: "the answer got lost".into() }) } else { answer }
    }
}

#[async_trait]
impl Store for FlakyStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.around(self.store.get(key)).await
    }

    async fn list(&self, prefix: &str, page: Page) -> Result<Listing, StoreError> {
        self.around(self.store.list(prefix, page)).await
    }

    async fn commit(
        &self,
        conditions: Vec<Condition>,
        operations: Vec<Operation>,
    ) -> Result<Option<Revision>, StoreError> {
        let has_record = operations.iter().any(writes_record);
        let committed = self.around(self.store.commit(conditions, operations)).await;
        if has_record && self.unanswered.load(Ordering::SeqCst) > 0 {
            self.unanswered.fetch_sub(1, Ordering::SeqCst);
            return Err(StoreError::Unavailable { reason: "the answer got lost".into() });
        }
        committed
    }

    async fn grant(&self, time_to_live: Duration) -> Result<LeaseId, StoreError> {
        self.around(self.store.grant(time_to_live)).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.around(self.store.renew(lease)).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.around(self.store.revoke(lease)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.around(self.store.watch(prefix, after)).await
    }
}

fn writes_record(operation: &Operation) -> bool {
    matches!(operation, Operation::Put { key, .. } if key.contains("/records/"))
}
