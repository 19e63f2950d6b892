//! The store as a host of its own, and the way to it, which takes time and can be cut.

use std::fmt::{self, Debug, Formatter};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use windlass_store::{
    Condition, Entry, LeaseId, Listing, MemoryStore, Operation, Page, Revision, Store, StoreError, Watch,
};

use crate::dice::Dice;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Something to be done where the store is, by its clock: every host has its own.
type Call = Box<dyn FnOnce(MemoryStore) -> BoxFuture<'static, ()> + Send>;

/// What arrives at the store.
pub(crate) type Calls = mpsc::UnboundedReceiver<Call>;

/// Where to send it.
pub(crate) type Inlet = mpsc::UnboundedSender<Call>;

/// The store's host.
pub(crate) async fn run(mut calls: Calls) {
    let store = MemoryStore::default();
    while let Some(call) = calls.recv().await {
        tokio::spawn(call(store.clone()));
    }
}

/// Cuts a host off from the store. Those who wait for it are told in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    is_cut: AtomicBool,
    changed: Notify,
}

impl Cut {
    pub(crate) fn set(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Returns when it is cut off.
    async fn wait(&self) {
        while let changed = self.changed.notified()
            && !self.is_cut.load(Ordering::Relaxed)
        {
            changed.await;
        }
    }
}

/// The store as one host sees it.
#[derive(Clone)]
pub(crate) struct RemoteStore {
    pub(crate) inlet: Inlet,
    /// Nothing goes there or comes back while it is cut off.
    pub(crate) cut: Arc<Cut>,
    pub(crate) dice: Arc<Dice>,
}

impl Debug for RemoteStore {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("RemoteStore")
    }
}

impl RemoteStore {
    async fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(MemoryStore) -> BoxFuture<'static, Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let answer = async {
            sleep(self.dice.between_ms(0, 10)).await;
            self.reach().await;
            let (sender, answer) = oneshot::channel();
            let call = |store| async move { drop(sender.send(call(store).await)) }.boxed();
            if self.inlet.send(Box::new(call)).is_err() {
                return Err(unavailable());
            }
            let answer = answer.await.unwrap_or_else(|_| Err(unavailable()));
            sleep(self.dice.between_ms(0, 10)).await;
            self.reach().await;
            answer
        };
        timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(unavailable()))
    }

    /// What is sent while the store is away is lost.
    async fn reach(&self) {
        if self.cut.is_cut.load(Ordering::Relaxed) {
            pending().await
        }
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { reason: "it is cut off".into() }
}

/// What an operation writes, without the value.
fn written(operation: &Operation) -> String {
    match operation {
        Operation::Put { key, lease, .. } => format!("put {key} under {lease:?}"),
        Operation::Delete(key) => format!("delete {key}"),
        Operation::DeletePrefix(prefix) => format!("delete all of {prefix}"),
    }
}

#[async_trait]
impl Store for RemoteStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = key.to_owned();
        self.ask(|store| async move { store.get(&key).await }.boxed()).await
    }

    async fn list(&self, prefix: &str, page: Page) -> Result<Listing, StoreError> {
        let prefix = prefix.to_owned();
        self.ask(|store| async move { store.list(&prefix, page).await }.boxed()).await
    }

    async fn commit(
        &self,
        conditions: Vec<Condition>,
        operations: Vec<Operation>,
    ) -> Result<Option<Revision>, StoreError> {
        let keys: Vec<_> = operations.iter().map(written).collect();
        let call = |store: MemoryStore| async move { store.commit(conditions, operations).await }.boxed();
        let committed = self.ask(call).await;
        tracing::info!(target: "windlass_store", ?keys, ?committed, "commit");
        committed
    }

    async fn grant(&self, time_to_live: Duration) -> Result<LeaseId, StoreError> {
        self.ask(move |store| async move { store.grant(time_to_live).await }.boxed()).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(move |store| async move { store.renew(lease).await }.boxed()).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(move |store| async move { store.revoke(lease).await }.boxed()).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let prefix = prefix.to_owned();
        let mut changes =
            self.ask(move |store| async move { store.watch(&prefix, after).await }.boxed()).await?;
        let (sender, receiver) = mpsc::channel(1000);
        let cut = Arc::clone(&self.cut);
        tokio::spawn(async move {
            loop {
                let change = tokio::select! {
                    biased;
                    () = cut.wait() => Err(unavailable()),
                    () = sender.closed() => return,
                    change = changes.next() => change,
                };
                let is_over = change.is_err();
                if sender.send(change).await.is_err() || is_over {
                    return;
                }
            }
        });
        Ok(Watch::new(receiver))
    }
}
