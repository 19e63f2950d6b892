use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use crate::state::{State, Values};
use crate::store::Store;
use crate::{Condition, Entry, LeaseId, Listing, Operation, Page, Revision, StoreError, Watch};

/// When to try again to end a lease that could not be ended.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// A store in this process; clones share it. Its time is tokio's, so that tests can stop it.
#[derive(Debug)]
pub struct Embedded<V> {
    state: Arc<Mutex<State<V>>>,
}

impl<V> Clone for Embedded<V> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state) }
    }
}

impl<V: Values> Embedded<V> {
    /// Values as they were left at this revision.
    pub(crate) fn new(values: V, revision: Revision) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(values, revision))) }
    }

    async fn run<R: Send + 'static>(
        &self,
        action: impl FnOnce(&mut State<V>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let state = Arc::clone(&self.state);
        let action = move || {
            let mut state = lock(&state);
            state.expire(Instant::now())?;
            action(&mut state)
        };
        if !V::BLOCKS {
            return action();
        }
        let broken = |error: tokio::task::JoinError| StoreError::Damaged { reason: error.to_string() };
        spawn_blocking(action).await.map_err(broken)?
    }

    /// Ends the lease when its time is up, so that watches hear of it though nobody asks.
    fn end_in_time(&self, lease: LeaseId) {
        let state = Arc::downgrade(&self.state);
        tokio::spawn(async move {
            loop {
                let Some(state) = state.upgrade() else { return };
                let end = match (Self { state }).run(move |state| Ok(state.end(lease))).await {
                    Ok(Some(end)) => end,
                    Ok(None) => return,
                    Err(error) => {
                        tracing::error!(%error, "a lease that is over cannot be ended");
                        Instant::now() + RETRY_DELAY
                    }
                };
                sleep_until(end).await;
            }
        });
    }
}

fn lock<V>(state: &Mutex<State<V>>) -> MutexGuard<'_, State<V>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl<V: Values> Store for Embedded<V> {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = key.to_owned();
        self.run(move |state| state.get(&key)).await
    }

    async fn list(&self, prefix: &str, page: Page) -> Result<Listing, StoreError> {
        let prefix = prefix.to_owned();
        self.run(move |state| state.list(&prefix, &page)).await
    }

    async fn commit(
        &self,
        conditions: Vec<Condition>,
        operations: Vec<Operation>,
    ) -> Result<Option<Revision>, StoreError> {
        self.run(move |state| state.commit(&conditions, operations)).await
    }

    async fn grant(&self, time_to_live: Duration) -> Result<LeaseId, StoreError> {
        let lease = self.run(move |state| Ok(state.grant(time_to_live, Instant::now()))).await?;
        self.end_in_time(lease);
        Ok(lease)
    }

    async fn renew(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.run(move |state| state.renew(lease, Instant::now())).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.run(move |state| state.revoke(lease)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let prefix = prefix.to_owned();
        self.run(move |state| state.watch(&prefix, after)).await
    }
}
