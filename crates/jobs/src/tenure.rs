use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use windlass_store::{LeaseId, LeaseKeeper, Store, StoreError};

/// A lease that is kept alive, with a name of its own. Dropping it lets the lease run out.
pub(crate) struct Tenure {
    keeper: LeaseKeeper,
    /// Written into claims, to know one's own.
    pub(crate) owner: String,
}

impl Tenure {
    pub(crate) async fn begin(store: &Arc<dyn Store>, time_to_live: Duration) -> Result<Self, StoreError> {
        let keeper = LeaseKeeper::grant(Arc::clone(store), time_to_live).await?;
        Ok(Self { keeper, owner: Uuid::now_v7().to_string() })
    }

    pub(crate) fn lease(&self) -> LeaseId {
        self.keeper.lease()
    }

    /// Returns once the lease is over, or may be.
    pub(crate) async fn lost(&self) {
        self.keeper.lost().await;
    }

    /// Gives the lease, and the claims under it, back at once.
    pub(crate) async fn end(self) {
        if let Err(error) = self.keeper.release().await {
            tracing::debug!(%error, "a lease could not be given back: it will run out");
        }
    }
}
