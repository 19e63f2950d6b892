use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use uuid::Uuid;
use windlass_store::{LeaseId, Store, StoreError};

/// A lease that is kept alive, with a name of its own. Dropping it lets the lease run out.
pub(crate) struct Tenure {
    pub(crate) lease: LeaseId,
    /// Written into claims, to know one's own.
    pub(crate) owner: String,
    store: Arc<dyn Store>,
    lost: watch::Receiver<bool>,
    keeper: JoinHandle<()>,
}

impl Tenure {
    pub(crate) async fn begin(store: &Arc<dyn Store>, time_to_live: Duration) -> Result<Self, StoreError> {
        let granted = Instant::now();
        let lease = store.grant(time_to_live).await?;
        let (lose, lost) = watch::channel(false);
        let keeping = keep(Arc::clone(store), lease, time_to_live, granted);
        let keeper = tokio::spawn(async move {
            keeping.await;
            lose.send_replace(true);
        });
        Ok(Self { lease, owner: Uuid::now_v7().to_string(), store: Arc::clone(store), lost, keeper })
    }

    /// Returns once the lease is over, or may be as far as one can tell from here.
    pub(crate) async fn lost(&self) {
        // An error means that the keeper is gone, and the lease will be.
        let _ = self.lost.clone().wait_for(|lost| *lost).await;
    }

    /// Gives the lease, and the claims under it, back at once.
    pub(crate) async fn end(self) {
        self.keeper.abort();
        if let Err(error) = self.store.revoke(self.lease).await {
            tracing::debug!(%error, "the lease could not be given back: it will run out");
        }
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Renews the lease until it is over.
async fn keep(store: Arc<dyn Store>, lease: LeaseId, time_to_live: Duration, granted: Instant) {
    let mut last = granted;
    loop {
        sleep(time_to_live / 4).await;
        let asked = Instant::now();
        match store.renew(lease).await {
            Ok(()) => last = asked,
            Err(StoreError::LeaseLost) => return,
            Err(error) if last.elapsed() >= time_to_live => {
                tracing::warn!(%error, "the lease of this server's jobs could not be renewed in time");
                return;
            }
            Err(error) => tracing::debug!(%error, "a lease could not be renewed"),
        }
    }
}
