use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use windlass_store::membership::Capacity;
use windlass_store::{Condition, LeaseId, Listing, MemoryStore, Operation, Revision, Watch};

use super::*;

fn member(address: &str) -> Member {
    Member {
        address: address.into(),
        model: "demo".into(),
        fingerprint: "f".into(),
        version: "1".into(),
        capacity: Capacity { lanes: 1, blocks: 2 },
        started_ms: 0,
    }
}

fn keys() -> MemberKeys {
    MemberKeys::of("main").unwrap()
}

fn put(id: &str, value: Vec<u8>) -> Operation {
    Operation::Put { key: format!("{}{id}", keys().prefix()), value, lease: None }
}

async fn commit(store: &dyn Store, operation: Operation) {
    store.commit(Vec::new(), vec![operation]).await.unwrap().unwrap();
}

/// Waits until the list has these ids.
async fn is(members: &Members, ids: &[&str]) {
    let has = |view: &MemberMap| view.keys().map(WorkerId::as_str).eq(ids.iter().copied());
    let mut view = members.view();
    let found = tokio::time::timeout(Duration::from_secs(30), view.wait_for(has)).await;
    assert!(found.is_ok(), "{:?} instead of {ids:?}", members.view().borrow().keys());
}

#[tokio::test(start_paused = true)]
async fn workers_come_and_go_with_their_entries() {
    let store = MemoryStore::default();
    commit(&store, put("a", member("a:1").to_json())).await;
    let members = Members::watch(Arc::new(store.clone()), keys());
    is(&members, &["a"]).await;
    commit(&store, put("b", member("b:1").to_json())).await;
    is(&members, &["a", "b"]).await;
    commit(&store, put("b", member("b:2").to_json())).await;
    members.view().wait_for(|view| view["b"].address == "b:2").await.unwrap();
    commit(&store, Operation::DeletePrefix(keys().prefix().into())).await;
    is(&members, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_keeps_nobody_else_out() {
    let store = MemoryStore::default();
    commit(&store, put("broken", b"{".to_vec())).await;
    commit(&store, put("a/b", member("a:1").to_json())).await;
    commit(&store, put("a", member("a:1").to_json())).await;
    let members = Members::watch(Arc::new(store.clone()), keys());
    is(&members, &["a"]).await;
    commit(&store, put("broken", member("c:1").to_json())).await;
    is(&members, &["a", "broken"]).await;
    commit(&store, put("a", b"no longer JSON".to_vec())).await;
    is(&members, &["broken"]).await;
}

/// A memory store that can be away; its watches end then.
#[derive(Debug, Default)]
struct Flaky {
    store: MemoryStore,
    away: AtomicBool,
    watches: std::sync::Mutex<Vec<watch::Sender<()>>>,
    behind: AtomicBool,
}

impl Flaky {
    fn check(&self) -> Result<(), StoreError> {
        match self.away.load(Ordering::Relaxed) {
            true => Err(StoreError::Unavailable { reason: "away".into() }),
            false => Ok(()),
        }
    }

    fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
        self.watches.lock().unwrap().clear();
    }
}

#[async_trait]
impl Store for Flaky {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str, page: Page) -> Result<Listing, StoreError> {
        self.check()?;
        self.store.list(prefix, page).await
    }

    async fn commit(&self, c: Vec<Condition>, o: Vec<Operation>) -> Result<Option<Revision>, StoreError> {
        self.store.commit(c, o).await
    }

    async fn grant(&self, time_to_live: Duration) -> Result<LeaseId, StoreError> {
        self.store.grant(time_to_live).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.renew(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.revoke(lease).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.check()?;
        if self.behind.swap(false, Ordering::Relaxed) {
            return Err(StoreError::Compacted { revision: after });
        }
        let mut changes = self.store.watch(prefix, after).await?;
        let (sender, mut alive) = watch::channel(());
        self.watches.lock().unwrap().push(sender);
        let (send, receive) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    // Nothing is told any more once the store is away.
                    biased;
                    _ = alive.changed() => return,
                    change = changes.next() => if send.send(change).await.is_err() { return },
                }
            }
        });
        Ok(Watch::new(receive))
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_list_stays_while_the_store_is_away_and_what_was_missed_is_caught_up() {
    let store = Arc::new(Flaky::default());
    commit(&*store, put("a", member("a:1").to_json())).await;
    let members = Members::watch(store.clone(), keys());
    is(&members, &["a"]).await;
    store.set_away(true);
    commit(&*store, Operation::DeletePrefix(keys().prefix().into())).await;
    commit(&*store, put("b", member("b:1").to_json())).await;
    sleep(Duration::from_secs(60)).await;
    is(&members, &["a"]).await;
    store.behind.store(true, Ordering::Relaxed);
    store.set_away(false);
    is(&members, &["b"]).await;
    commit(&*store, put("c", member("c:1").to_json())).await;
    is(&members, &["b", "c"]).await;
}
