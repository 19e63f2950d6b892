use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use windlass_store::{Page, Store, StoreError};

use crate::backoff::Backoff;

/// How long a change can go unnoticed when the store's watch fails.
const POLL: Duration = Duration::from_secs(5);

/// Tells that something about jobs changed, to those who then look what.
pub(crate) struct Pulse {
    changes: broadcast::Sender<()>,
    follower: JoinHandle<()>,
}

/// One who waits for changes; sees one that came before it began to wait. Who came first goes on first.
pub(crate) struct Beat(broadcast::Receiver<()>);

impl Pulse {
    /// Follows all keys that begin with `prefix`. Must be called inside a tokio runtime.
    pub(crate) fn start(store: Arc<dyn Store>, prefix: String) -> Self {
        // Of several changes at once one is enough.
        let changes = broadcast::Sender::new(1);
        let follower = tokio::spawn(follow(store, prefix, changes.clone()));
        Self { changes, follower }
    }

    /// Waits from now on.
    pub(crate) fn beat(&self) -> Beat {
        Beat(self.changes.subscribe())
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Beat {
    /// Returns after the next change, or after a while.
    pub(crate) async fn next(&mut self) {
        if let Ok(Err(RecvError::Lagged(_))) = timeout(POLL, self.0.recv()).await {
            // The last change is among those that were told just now.
            self.0 = self.0.resubscribe();
        }
    }
}

async fn follow(store: Arc<dyn Store>, prefix: String, sender: broadcast::Sender<()>) {
    let mut backoff = Backoff::new(0);
    loop {
        match pass_on(&*store, &prefix, &sender, &mut backoff).await {
            StoreError::Compacted { .. } => {}
            error => {
                tracing::debug!(%error, "changes to jobs cannot be watched, trying again");
                backoff.pause().await;
            }
        }
    }
}

/// Passes changes on until the watch breaks.
async fn pass_on(
    store: &dyn Store,
    prefix: &str,
    sender: &broadcast::Sender<()>,
    backoff: &mut Backoff,
) -> StoreError {
    let begin = async {
        let revision = store.list(prefix, Page { after: None, limit: 1 }).await?.revision;
        store.watch(prefix, revision).await
    };
    let mut changes = match begin.await {
        Ok(changes) => changes,
        Err(error) => return error,
    };
    *backoff = Backoff::new(0);
    loop {
        // Also at first: something may have changed while nobody watched.
        // Nobody may wait.
        let _ = sender.send(());
        if let Err(error) = changes.next().await {
            return error;
        }
    }
}
