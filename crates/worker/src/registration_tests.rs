use windlass_store::MemoryStore;

use super::*;

const TIME_TO_LIVE: Duration = Duration::from_secs(10);

fn member_at(address: &str, started_ms: u64) -> Member {
    Member {
        address: address.into(),
        model: "demo".into(),
        fingerprint: "f".into(),
        version: "1".into(),
        capacity: Capacity { lanes: 1, blocks: 2 },
        started_ms,
    }
}

fn start(store: &MemoryStore, member: &Member) -> Registration {
    let (keys, id) = (MemberKeys::of("main").unwrap(), WorkerId::new("w").unwrap());
    Registration::start(Arc::new(store.clone()), &keys, &id, member.clone(), TIME_TO_LIVE)
}

async fn registered(store: &MemoryStore) -> Option<(Member, u64)> {
    let entry = store.get("/windlass/v1/main/workers/w").await.unwrap()?;
    Some((Member::from_json(&entry.value).unwrap(), entry.revision))
}

async fn is_registered_as(store: &MemoryStore, member: &Member) {
    while registered(store).await.is_none_or(|(known, _)| known != *member) {
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_in_the_list_until_it_withdraws() {
    let store = MemoryStore::default();
    let member = member_at("a:1", 1);
    let registration = start(&store, &member);
    is_registered_as(&store, &member).await;
    sleep(TIME_TO_LIVE * 5).await;
    is_registered_as(&store, &member).await;
    registration.withdraw().await;
    assert_eq!(registered(&store).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_gone_without_a_word_leaves_after_its_lease() {
    let store = MemoryStore::default();
    let member = member_at("a:1", 1);
    let registration = start(&store, &member);
    is_registered_as(&store, &member).await;
    drop(registration);
    sleep(TIME_TO_LIVE / 2).await;
    is_registered_as(&store, &member).await;
    sleep(TIME_TO_LIVE).await;
    assert_eq!(registered(&store).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_lost_its_lease_registers_anew() {
    let store = MemoryStore::default();
    let member = member_at("a:1", 1);
    let _registration = start(&store, &member);
    is_registered_as(&store, &member).await;
    // The only lease there is.
    store.revoke(windlass_store::LeaseId(1)).await.unwrap();
    assert_eq!(registered(&store).await, None);
    is_registered_as(&store, &member).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_started_again_at_its_address_takes_its_place_at_once() {
    let store = MemoryStore::default();
    let (before, after) = (member_at("a:1", 1), member_at("a:1", 2));
    let former = start(&store, &before);
    is_registered_as(&store, &before).await;
    drop(former);
    let begin = Instant::now();
    let _registration = start(&store, &after);
    is_registered_as(&store, &after).await;
    assert!(begin.elapsed() < TIME_TO_LIVE / 10);
    // The end of the former lease leaves it alone.
    sleep(TIME_TO_LIVE * 2).await;
    is_registered_as(&store, &after).await;
}

#[tokio::test(start_paused = true)]
async fn an_id_of_a_dead_worker_is_free_after_its_lease() {
    let store = MemoryStore::default();
    let (dead, new) = (member_at("a:1", 1), member_at("b:2", 2));
    let former = start(&store, &dead);
    is_registered_as(&store, &dead).await;
    drop(former);
    let _registration = start(&store, &new);
    is_registered_as(&store, &new).await;
}

#[tokio::test(start_paused = true)]
async fn an_id_of_a_living_worker_is_not_taken_away() {
    let store = MemoryStore::default();
    let (owner, rival) = (member_at("a:1", 1), member_at("b:2", 2));
    let _owner = start(&store, &owner);
    is_registered_as(&store, &owner).await;
    let second = start(&store, &rival);
    let message = second.taken().await.to_string();
    let expected =
        "worker_id 'w' belongs to the worker at a:1, which is alive: give each worker an id of its own";
    assert_eq!(message, expected);
    is_registered_as(&store, &owner).await;
}
