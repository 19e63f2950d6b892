use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use windlass_store::{Page, Store, StoreError};

use crate::backoff::Backoff;

/// How long a change can go unnoticed when the store's watch fails.
const POLL: Duration = Duration::from_secs(5);

/// Tells that something about jobs changed, to those who then look what.
pub(crate) struct Pulse {
    changes: watch::Receiver<()>,
    follower: JoinHandle<()>,
}

/// One who waits for changes; sees one that came before it began to wait.
pub(crate) struct Beat(watch::Receiver<()>);

impl Pulse {
    /// Follows all keys that begin with `prefix`. Must be called inside a tokio runtime.
    pub(crate) fn start(store: Arc<dyn Store>, prefix: String) -> Self {
        let (sender, changes) = watch::channel(());
        Self { changes, follower: tokio::spawn(follow(store, prefix, sender)) }
    }

    /// Waits from now on.
    pub(crate) fn beat(&self) -> Beat {
        Beat(self.changes.clone())
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
        let _ = timeout(POLL, self.0.changed()).await;
    }
}

async fn follow(store: Arc<dyn Store>, prefix: String, sender: watch::Sender<()>) {
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
    sender: &watch::Sender<()>,
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
        sender.send_replace(());
        if let Err(error) = changes.next().await {
            return error;
        }
    }
}
