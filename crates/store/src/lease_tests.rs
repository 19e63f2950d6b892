use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use tokio::time::{advance, sleep};

use super::*;
use crate::{Condition, Entry, Listing, MemoryStore, Operation, Page, Revision, Watch};

const TIME_TO_LIVE: Duration = Duration::from_secs(9);

/// A memory store that can be away, and counts renewals.
#[derive(Debug, Default)]
struct Flaky {
    store: MemoryStore,
    away: watch::Sender<bool>,
    renewals: AtomicU32,
}

#[async_trait]
impl Store for Flaky {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str, page: Page) -> Result<Listing, StoreError> {
        self.store.list(prefix, page).await
    }

    async fn commit(&self, c: Vec<Condition>, o: Vec<Operation>) -> Result<Option<Revision>, StoreError> {
        self.store.commit(c, o).await
    }

    async fn grant(&self, time_to_live: Duration) -> Result<LeaseId, StoreError> {
        self.store.grant(time_to_live).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.renewals.fetch_add(1, Ordering::Relaxed);
        if *self.away.borrow() {
            return Err(StoreError::Unavailable { reason: "away".into() });
        }
        self.store.renew(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.revoke(lease).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.store.watch(prefix, after).await
    }
}

async fn keeper(store: &Arc<Flaky>) -> LeaseKeeper {
    let keeper = LeaseKeeper::grant(store.clone(), TIME_TO_LIVE).await.unwrap();
    let put = Operation::Put { key: "k".into(), value: vec![1], lease: Some(keeper.lease()) };
    store.commit(Vec::new(), vec![put]).await.unwrap().unwrap();
    keeper
}

async fn is_there(store: &Flaky) -> bool {
    store.get("k").await.unwrap().is_some()
}

#[tokio::test(start_paused = true)]
async fn a_lease_lives_as_long_as_its_keeper_and_one_time_to_live_more() {
    let store = Arc::new(Flaky::default());
    let keeper = keeper(&store).await;
    sleep(TIME_TO_LIVE * 20).await;
    assert!(is_there(&store).await && !*keeper.watch_lost().borrow());
    let renewals = store.renewals.load(Ordering::Relaxed);
    assert!((59..=61).contains(&renewals), "at a third of its time, so not {renewals} times");
    drop(keeper);
    sleep(TIME_TO_LIVE + Duration::from_millis(1)).await;
    assert!(!is_there(&store).await);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_comes_back_in_time_costs_no_lease() {
    let store = Arc::new(Flaky::default());
    let keeper = keeper(&store).await;
    sleep(TIME_TO_LIVE / 4).await;
    store.away.send_replace(true);
    sleep(TIME_TO_LIVE / 2).await;
    store.away.send_replace(false);
    sleep(TIME_TO_LIVE * 2).await;
    assert!(is_there(&store).await && !*keeper.watch_lost().borrow());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_costs_the_lease_at_its_end_and_no_later() {
    let store = Arc::new(Flaky::default());
    let keeper = keeper(&store).await;
    store.away.send_replace(true);
    let start = Instant::now();
    keeper.lost().await;
    assert_eq!(start.elapsed().as_millis(), TIME_TO_LIVE.as_millis());
    let tries = store.renewals.load(Ordering::Relaxed);
    assert!((4..40).contains(&tries), "{tries} tries");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_the_store_ended_is_told_at_the_next_renewal() {
    let store = Arc::new(Flaky::default());
    let keeper = keeper(&store).await;
    store.revoke(keeper.lease()).await.unwrap();
    advance(TIME_TO_LIVE / 3).await;
    let start = Instant::now();
    keeper.lost().await;
    assert!(start.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn release_deletes_the_keys_at_once() {
    let store = Arc::new(Flaky::default());
    keeper(&store).await.release().await.unwrap();
    assert!(!is_there(&store).await);
}
