//! A store in a file outlives its process, but for what was under leases.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use windlass_store::{LocalStore, Operation, Page, Store, StoreError};
use windlass_tests::{PATIENCE, binary};

use super::properties::{commit, put};

#[tokio::test]
async fn a_file_opened_again_has_what_it_had_but_for_leases() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("store");
    let store = LocalStore::open(&file)?;
    let lease = store.grant(PATIENCE).await?;
    let leased = Operation::Put { key: "/leased".into(), value: Vec::new(), lease: Some(lease) };
    let first = commit(&store, vec![put("/kept", "1"), leased]).await?;
    let last = commit(&store, vec![put("/later", "2")]).await?;
    let before = store.get("/kept").await?;
    drop(store);

    let store = eventually_open(&file).await?;
    let listing = store.list("", Page::ALL).await?;
    let keys: Vec<_> = listing.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!((keys, store.get("/kept").await?), (vec!["/kept", "/later"], before));
    ensure!(listing.revision > last, "revisions go on growing");
    // A watch that would miss the end of the leases is refused.
    for revision in [first, last] {
        assert_eq!(store.watch("", revision).await.err(), Some(StoreError::Compacted { revision }));
    }
    store.watch("", listing.revision).await?;
    ensure!(commit(&store, vec![put("/later", "3")]).await? > listing.revision);
    // Nothing is left of the lease.
    assert_eq!(store.renew(lease).await, Err(StoreError::LeaseLost));
    Ok(())
}

#[tokio::test]
async fn a_file_in_use_is_refused_by_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("store");
    let _store = LocalStore::open(&file)?;
    let error = LocalStore::open(&file).err().context("it is in use")?;
    ensure!(matches!(error, StoreError::Refused { .. }), "{error:?}");
    let message = error.to_string();
    ensure!(message.contains(&format!("{} is in use by another process", file.display())), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_file_of_something_else_is_refused_and_left_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("store");
    std::fs::write(&file, "a diary")?;
    let error = LocalStore::open(&file).err().context("it is no store")?;
    ensure!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(&file)?, "a diary");
    Ok(())
}

/// A commit that returned is there after kill -9, and none is there by half.
#[tokio::test]
async fn a_killed_process_loses_nothing_it_was_told_is_done() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("store");
    let mut done = 0;
    for _ in 0..3 {
        let mut writer = Command::new(binary("store-writer")?).arg(&file).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(writer.stdout.take().context("no standard output")?).lines();
        for line in lines.take(25) {
            done = line?.parse()?;
        }
        writer.kill()?;
        writer.wait()?;
        let store = LocalStore::open(&file)?;
        let text = async |key| {
            Ok::<_, anyhow::Error>(String::from_utf8(store.get(key).await?.context("no value")?.value)?)
        };
        let (left, right) = (text("/left").await?, text("/right").await?);
        ensure!(left == right, "a commit is there by half: {left} and {right}");
        let found: u64 = left.parse()?;
        ensure!(found >= done, "{done} was done, and {found} is there");
        drop(store);
        eventually_open(&file).await?;
    }
    ensure!(done >= 50, "the writer goes on where it was");
    Ok(())
}

/// Tasks may hold the file for a moment longer than its last handle.
async fn eventually_open(file: &std::path::Path) -> Result<LocalStore> {
    let opened = std::cell::RefCell::new(None);
    windlass_tests::eventually("the file is free", || async {
        *opened.borrow_mut() = Some(LocalStore::open(file)?);
        Ok(true)
    })
    .await?;
    opened.into_inner().context("it was opened")
}
