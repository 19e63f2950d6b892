//! Members of etcd that die, hang and come back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use windlass_store::{Change, EtcdConfig, EtcdStore, Page, Store, StoreError};
use windlass_tests::etcd::Etcd;
use windlass_tests::eventually;

use super::properties::{commit, put};

fn store(etcd: &Etcd, timeout: Duration) -> Result<EtcdStore> {
    Ok(EtcdStore::new(EtcdConfig { timeout, ..EtcdConfig::new(etcd.endpoints()) })?)
}

#[tokio::test]
async fn writes_go_on_when_the_leader_is_killed() -> Result<()> {
    let mut etcd = Etcd::of(3, None, &[]).await?;
    let store = store(&etcd, Duration::from_secs(5))?;
    commit(&store, vec![put("/before", "x")]).await?;
    let lease = store.grant(Duration::from_secs(30)).await?;
    let leader = etcd.leader().await?;
    etcd.kill(leader)?;
    let writes = || async { commit(&store, vec![put("/after", "x")]).await.map(|_| true) };
    eventually("another member leads", writes).await?;
    // With one of three away, no call fails: each finds a member that answers.
    for number in 0..40 {
        commit(&store, vec![put("/after", &number.to_string())]).await?;
        ensure!(store.get("/before").await?.is_some(), "what was written is there");
        store.renew(lease).await?;
    }
    etcd.restart(leader).await?;
    Ok(())
}

#[tokio::test]
async fn an_etcd_that_is_away_says_so_and_works_again_when_it_is_back() -> Result<()> {
    let mut etcd = Etcd::start().await?;
    let store = store(&etcd, Duration::from_secs(1))?;
    let revision = commit(&store, vec![put("/k", "before")]).await?;
    let mut watch = store.watch("/", revision).await?;
    etcd.kill(0)?;
    let refused = store.get("/k").await;
    ensure!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    let ended = watch.next().await;
    ensure!(matches!(ended, Err(StoreError::Unavailable { .. })), "{ended:?}");
    etcd.restart(0).await?;
    let value = || async { Ok(store.get("/k").await?.is_some_and(|entry| entry.value == b"before")) };
    eventually("it is back with what it had", value).await
}

#[tokio::test]
async fn a_store_may_be_made_before_its_etcd_is_there() -> Result<()> {
    let mut etcd = Etcd::start().await?;
    etcd.kill(0)?;
    let store = store(&etcd, Duration::from_secs(1))?;
    let refused = store.list("/", Page::ALL).await;
    ensure!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    etcd.restart(0).await?;
    eventually("it is there", || async { Ok(store.list("/", Page::ALL).await.is_ok()) }).await
}

#[tokio::test]
async fn a_frozen_etcd_costs_a_call_its_time_and_no_more() -> Result<()> {
    let etcd = Etcd::start().await?;
    let store = store(&etcd, Duration::from_secs(1))?;
    commit(&store, vec![put("/k", "x")]).await?;
    etcd.signal(0, "-STOP")?;
    for _ in 0..2 {
        let error = store.get("/k").await.err().context("nobody answers")?;
        ensure!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        let error = commit(&store, vec![put("/k", "y")]).await.err().context("nobody answers")?;
        ensure!(error.to_string().contains("etcd did not answer within 1s"), "{error}");
    }
    etcd.signal(0, "-CONT")?;
    eventually("it answers again", || async { Ok(store.get("/k").await.is_ok()) }).await
}

#[tokio::test]
async fn a_frozen_member_of_three_stops_no_reads() -> Result<()> {
    let etcd = Etcd::of(3, None, &[]).await?;
    let store = store(&etcd, Duration::from_secs(6))?;
    commit(&store, vec![put("/k", "x")]).await?;
    let follower = (etcd.leader().await? + 1) % 3;
    etcd.signal(follower, "-STOP")?;
    for _ in 0..6 {
        ensure!(store.get("/k").await?.is_some(), "the others answer");
    }
    etcd.signal(follower, "-CONT")?;
    Ok(())
}

#[tokio::test]
async fn a_watch_from_a_forgotten_revision_is_told_to_list_again() -> Result<()> {
    let etcd = Etcd::start().await?;
    let store = store(&etcd, Duration::from_secs(5))?;
    let first = commit(&store, vec![put("/k", "1")]).await?;
    let last = commit(&store, vec![put("/k", "2")]).await?;
    let last = last.max(commit(&store, vec![put("/k", "3")]).await?);
    etcd.control(&["compact", &last.to_string()])?;
    let told = match store.watch("/", first - 1).await {
        Ok(mut watch) => watch.next().await.err(),
        Err(error) => Some(error),
    };
    assert_eq!(told, Some(StoreError::Compacted { revision: first - 1 }));
    let mut watch = store.watch("/", last).await?;
    commit(&store, vec![put("/k", "4")]).await?;
    ensure!(matches!(watch.next().await?, Change::Put(entry) if entry.value == b"4"));
    Ok(())
}
