//! What holds for every store.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use windlass_store::{
    Change, Condition, Entry, LeaseId, MAX_OPERATIONS, Operation, Page, Revision, Store, StoreError, Watch,
};
use windlass_tests::{PATIENCE, eventually};

type AnyStore = Arc<dyn Store>;

pub(crate) fn put(key: &str, value: &str) -> Operation {
    Operation::Put { key: key.into(), value: value.into(), lease: None }
}

fn leased(key: &str, lease: LeaseId) -> Operation {
    Operation::Put { key: key.into(), value: b"leased".into(), lease: Some(lease) }
}

/// Commits without conditions.
pub(crate) async fn commit(store: &dyn Store, operations: Vec<Operation>) -> Result<Revision> {
    store.commit(Vec::new(), operations).await?.context("without conditions it must happen")
}

async fn values(store: &dyn Store, prefix: &str) -> Result<Vec<(String, String)>> {
    let text = |entry: Entry| Ok((entry.key, String::from_utf8(entry.value)?));
    store.list(prefix, Page::ALL).await?.entries.into_iter().map(text).collect()
}

async fn keys(store: &dyn Store, prefix: &str) -> Result<Vec<String>> {
    Ok(values(store, prefix).await?.into_iter().map(|(key, _)| key).collect())
}

async fn next(watch: &mut Watch) -> Result<Change> {
    Ok(timeout(PATIENCE, watch.next()).await.context("the watch is silent")??)
}

pub(crate) async fn conditions_decide_whether_a_commit_happens(store: AnyStore) -> Result<()> {
    let attempt = async |condition, value| store.commit(vec![condition], vec![put("/k", value)]).await;
    let absent = || Condition::Absent("/k".into());
    let present = || Condition::Present("/k".into());
    assert_eq!(attempt(present(), "a").await?, None);
    let first = attempt(absent(), "b").await?.context("it is absent")?;
    assert_eq!(attempt(absent(), "c").await?, None);
    let second = attempt(present(), "d").await?.context("it is present")?;
    let unchanged = |revision| Condition::Unchanged("/k".into(), revision);
    assert_eq!(attempt(unchanged(first), "e").await?, None);
    let third = attempt(unchanged(second), "f").await?.context("it is unchanged")?;
    assert!(0 < first && first < second && second < third);
    let entry = store.get("/k").await?.context("it was put")?;
    assert_eq!((entry.value.as_slice(), entry.revision), (b"f".as_slice(), third));
    assert_eq!(store.get("/none").await?, None);
    Ok(())
}

pub(crate) async fn a_commit_happens_as_a_whole(store: AnyStore) -> Result<()> {
    commit(&*store, vec![put("/a/1", "x"), put("/a/2", "x"), put("/b", "x"), put("/c", "x")]).await?;
    let operations = || {
        vec![
            Operation::DeletePrefix("/a/".into()),
            Operation::Delete("/b".into()),
            put("/c", "y"),
            put("/d", "y"),
        ]
    };
    let conditions = vec![Condition::Present("/b".into()), Condition::Absent("/c".into())];
    assert_eq!(store.commit(conditions, operations()).await?, None);
    assert_eq!(keys(&*store, "").await?, ["/a/1", "/a/2", "/b", "/c"]);
    let revision = commit(&*store, operations()).await?;
    let listing = store.list("", Page::ALL).await?;
    let found: Vec<_> = listing.entries.iter().map(|entry| (entry.key.as_str(), entry.revision)).collect();
    assert_eq!(found, [("/c", revision), ("/d", revision)]);
    assert_eq!(listing.revision, revision);
    // Nothing to delete is no error.
    commit(&*store, vec![Operation::Delete("/none".into()), Operation::DeletePrefix("/none".into())]).await?;
    Ok(())
}

pub(crate) async fn listings_are_in_order_and_come_in_pages(store: AnyStore) -> Result<()> {
    let inside: Vec<_> = (0..25).map(|number| format!("/p/{number:02}")).collect();
    for key in inside.iter().rev().map(String::as_str).chain(["/p", "/p.", "/p0", "/o/99", "/q/00"]) {
        commit(&*store, vec![put(key, "x")]).await?;
    }
    assert_eq!(keys(&*store, "/p/").await?, inside);
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let entries = store.list("/p/", Page { after, limit: 10 }).await?.entries;
        let Some(last) = entries.last() else { break };
        after = Some(last.key.clone());
        pages.push(entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>());
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
    assert_eq!(pages.concat(), inside);
    let from_before = store.list("/p/", Page { after: Some("/a".into()), limit: 1 }).await?;
    assert_eq!(from_before.entries[0].key, inside[0]);
    Ok(())
}

/// Longer than what etcd is asked for at once, while someone writes.
pub(crate) async fn a_long_listing_is_of_one_moment(store: AnyStore) -> Result<()> {
    let count = 1300;
    let keys: Vec<_> = (0..count).map(|number| format!("/k/{number:04}")).collect();
    for chunk in keys.chunks(MAX_OPERATIONS) {
        commit(&*store, chunk.iter().map(|key| put(key, "")).collect()).await?;
    }
    let (first, last) = (keys[0].clone(), keys[count - 1].clone());
    let mut tasks = JoinSet::new();
    let writer = store.clone();
    tasks.spawn(async move {
        for number in 0.. {
            let value = number.to_string();
            if commit(&*writer, vec![put(&first, &value), put(&last, &value)]).await.is_err() {
                return;
            }
        }
    });
    for _ in 0..10 {
        let listing = store.list("/k/", Page::ALL).await?;
        assert_eq!(listing.entries.len(), count);
        assert_eq!(listing.entries[0].value, listing.entries[count - 1].value);
    }
    Ok(())
}

pub(crate) async fn a_watch_tells_every_change_once_and_in_order(store: AnyStore) -> Result<()> {
    commit(&*store, vec![put("/w/a", "before"), put("/v", "before")]).await?;
    let revision = store.list("/w/", Page::ALL).await?.revision;
    let mut watch = store.watch("/w/", revision).await?;
    let writer = store.clone();
    let writing = tokio::spawn(async move {
        for number in 0..50 {
            commit(&*writer, vec![put("/w/a", &number.to_string()), put("/v", "x")]).await?;
        }
        commit(&*writer, vec![Operation::DeletePrefix("/".into())]).await
    });
    for number in 0..50 {
        let Change::Put(entry) = next(&mut watch).await? else { anyhow::bail!("deleted too early") };
        assert_eq!((entry.key.as_str(), entry.value), ("/w/a", number.to_string().into_bytes()));
    }
    assert_eq!(next(&mut watch).await?, Change::Deleted("/w/a".into()));
    writing.await??;
    Ok(())
}

pub(crate) async fn a_watch_may_begin_in_the_past(store: AnyStore) -> Result<()> {
    let mut revisions = Vec::new();
    for number in 0..5 {
        revisions.push(commit(&*store, vec![put("/w", &number.to_string()), put("/other", "x")]).await?);
    }
    let mut watch = store.watch("/w", revisions[1]).await?;
    for (number, revision) in revisions.into_iter().enumerate().skip(2) {
        let Change::Put(entry) = next(&mut watch).await? else { anyhow::bail!("nothing was deleted") };
        assert_eq!((entry.value, entry.revision), (number.to_string().into_bytes(), revision));
    }
    commit(&*store, vec![put("/w", "now")]).await?;
    ensure!(matches!(next(&mut watch).await?, Change::Put(entry) if entry.value == b"now"));
    Ok(())
}

pub(crate) async fn a_lease_that_ends_takes_its_keys_along(store: AnyStore) -> Result<()> {
    let lease = store.grant(Duration::from_millis(900)).await?;
    let revision =
        commit(&*store, vec![leased("/l/a", lease), leased("/l/b", lease), put("/l/c", "x")]).await?;
    let mut watch = store.watch("/l/", revision).await?;
    let mut gone = vec![next(&mut watch).await?, next(&mut watch).await?];
    gone.sort_by_key(|change| change.key().to_owned());
    assert_eq!(gone, ["/l/a", "/l/b"].map(|key| Change::Deleted(key.into())));
    assert_eq!(keys(&*store, "/l/").await?, ["/l/c"]);
    assert_eq!(store.renew(lease).await, Err(StoreError::LeaseLost));
    let late = store.commit(Vec::new(), vec![put("/l/d", "x"), leased("/l/e", lease)]).await;
    assert_eq!(late, Err(StoreError::LeaseLost));
    assert_eq!(keys(&*store, "/l/").await?, ["/l/c"]);
    Ok(())
}

pub(crate) async fn a_renewed_lease_lives_on(store: AnyStore) -> Result<()> {
    let time_to_live = Duration::from_secs(2);
    let (kept, left) = (store.grant(time_to_live).await?, store.grant(time_to_live).await?);
    commit(&*store, vec![leased("/kept", kept), leased("/left", left)]).await?;
    // Over when the one is gone that nobody renews.
    while store.get("/left").await?.is_some() {
        store.renew(kept).await?;
        ensure!(store.get("/kept").await?.is_some(), "a lease ended although it was renewed");
        sleep(time_to_live / 10).await;
    }
    store.renew(kept).await?;
    ensure!(store.get("/kept").await?.is_some(), "a lease ended although it was renewed");
    Ok(())
}

pub(crate) async fn a_revoked_lease_is_lost_with_its_keys(store: AnyStore) -> Result<()> {
    let lease = store.grant(PATIENCE).await?;
    let revision = commit(&*store, vec![leased("/l", lease)]).await?;
    let mut watch = store.watch("/", revision).await?;
    store.revoke(lease).await?;
    assert_eq!(next(&mut watch).await?, Change::Deleted("/l".into()));
    assert_eq!(store.get("/l").await?, None);
    assert_eq!(store.renew(lease).await, Err(StoreError::LeaseLost));
    // Once more does no harm.
    store.revoke(lease).await?;
    Ok(())
}

pub(crate) async fn a_key_put_again_leaves_its_former_lease(store: AnyStore) -> Result<()> {
    let (first, second) = (store.grant(PATIENCE).await?, store.grant(PATIENCE).await?);
    commit(&*store, vec![leased("/free", first), leased("/moved", first), leased("/gone", first)]).await?;
    commit(&*store, vec![put("/free", "x"), leased("/moved", second)]).await?;
    store.revoke(first).await?;
    assert_eq!(keys(&*store, "").await?, ["/free", "/moved"]);
    store.revoke(second).await?;
    assert_eq!(keys(&*store, "").await?, ["/free"]);
    Ok(())
}

pub(crate) async fn what_one_store_refuses_all_refuse(store: AnyStore) -> Result<()> {
    let twice = [
        vec![put("/k", "a"), put("/k", "b")],
        vec![put("/k", "a"), Operation::Delete("/k".into())],
        vec![Operation::DeletePrefix("/".into()), put("/k", "a")],
        (0..=MAX_OPERATIONS).map(|number| put(&format!("/k{number}"), "")).collect(),
    ];
    for operations in twice {
        let refused = store.commit(Vec::new(), operations).await;
        ensure!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    }
    let most = (0..MAX_OPERATIONS).map(|number| put(&format!("/k{number}"), "")).collect();
    commit(&*store, most).await?;
    Ok(())
}

pub(crate) async fn concurrent_commits_lose_nothing(store: AnyStore) -> Result<()> {
    let (tasks, rounds) = (4, 10);
    commit(&*store, vec![put("/count", "0")]).await?;
    let mut counting = JoinSet::new();
    for _ in 0..tasks {
        let store = store.clone();
        counting.spawn(async move {
            for _ in 0..rounds {
                eventually("it counts", || count_one(&*store)).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(counted) = counting.join_next().await {
        counted??;
    }
    let total = (tasks * rounds).to_string();
    assert_eq!(values(&*store, "/count").await?, [("/count".to_owned(), total)]);
    Ok(())
}

/// Adds one, unless somebody else did in between.
async fn count_one(store: &dyn Store) -> Result<bool> {
    let Entry { value, revision, .. } = store.get("/count").await?.context("it is there")?;
    let count: u32 = std::str::from_utf8(&value)?.parse()?;
    let unchanged = Condition::Unchanged("/count".into(), revision);
    Ok(store.commit(vec![unchanged], vec![put("/count", &(count + 1).to_string())]).await?.is_some())
}
