use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::jitter::jitter;
use crate::{LeaseId, Store, StoreError};

/// The first pause after a renewal that failed; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A lease that is kept alive by a task, as long as this lives.
///
/// Renewed at a third of its time, and from then on until the end. The end is counted by this process' own clock from
/// before the last renewal was sent, so the holder never believes in a lease longer than the store does.
#[derive(Debug)]
pub struct LeaseKeeper {
    store: Arc<dyn Store>,
    lease: LeaseId,
    lost: watch::Receiver<bool>,
    renewal: JoinHandle<()>,
}

impl LeaseKeeper {
    /// Asks the store for a lease that ends unless it is renewed within `time_to_live`.
    pub async fn grant(store: Arc<dyn Store>, time_to_live: Duration) -> Result<Self, StoreError> {
        let end = Instant::now() + time_to_live;
        let lease = store.grant(time_to_live).await?;
        let (sender, lost) = watch::channel(false);
        let renewing = Renewal { store: Arc::clone(&store), lease, time_to_live, end };
        let renewal = tokio::spawn(async move {
            renewing.run().await;
            // Nobody may be left who wants to know.
            let _ = sender.send(true);
        });
        Ok(Self { store, lease, lost, renewal })
    }

    /// Names the lease.
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    /// Becomes true, once, when the lease has ended or may have.
    pub fn watch_lost(&self) -> watch::Receiver<bool> {
        self.lost.clone()
    }

    /// Returns when the lease has ended or may have.
    pub async fn lost(&self) {
        // An error means that the task is gone, and with it the renewals.
        let _ = self.lost.clone().wait_for(|lost| *lost).await;
    }

    /// Ends the lease and deletes its keys.
    pub async fn release(self) -> Result<(), StoreError> {
        self.renewal.abort();
        self.store.revoke(self.lease).await
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

struct Renewal {
    store: Arc<dyn Store>,
    lease: LeaseId,
    time_to_live: Duration,
    end: Instant,
}

impl Renewal {
    /// Renews until the lease is lost.
    async fn run(mut self) {
        loop {
            sleep_until(self.end - self.time_to_live * 2 / 3).await;
            if let Err(error) = self.renew().await {
                tracing::warn!(lease = self.lease.0, %error, "a lease is lost");
                return;
            }
        }
    }

    /// Renews once, trying again until the lease's end; what says that it is lost.
    async fn renew(&mut self) -> Result<(), StoreError> {
        let mut pause = FIRST_PAUSE;
        let mut last = StoreError::Unavailable { reason: "no answer before its end".into() };
        loop {
            let asked = Instant::now();
            match timeout_at(self.end, self.store.renew(self.lease)).await {
                Ok(Ok(())) => {
                    self.end = asked + self.time_to_live;
                    return Ok(());
                }
                Ok(Err(StoreError::LeaseLost)) => return Err(StoreError::LeaseLost),
                Ok(Err(error)) => {
                    tracing::warn!(lease = self.lease.0, %error, "a lease cannot be renewed yet");
                    last = error;
                }
                Err(_) => return Err(last),
            }
            let next = Instant::now() + pause.mul_f64(jitter());
            if next >= self.end {
                sleep_until(self.end).await;
                return Err(last);
            }
            sleep_until(next).await;
            pause = (pause * 2).min(self.time_to_live / 6);
        }
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
