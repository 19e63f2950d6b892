//! Passwords, rights and certificates of etcd.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use windlass_store::{ClientTlsFiles, EtcdConfig, EtcdPassword, EtcdStore, Page, PemFile, Store, StoreError};
use windlass_tests::certificates::Certificates;
use windlass_tests::etcd::Etcd;
use windlass_tests::eventually;

use super::properties::{commit, put};

fn as_user(etcd: &Etcd, user: &str, password: &str) -> Result<EtcdStore> {
    let user = Some((user.to_owned(), EtcdPassword(password.to_owned())));
    Ok(EtcdStore::new(EtcdConfig { user, ..EtcdConfig::new(etcd.endpoints()) })?)
}

fn refused<R: std::fmt::Debug>(answer: Result<R, StoreError>) -> Result<()> {
    match answer {
        Err(StoreError::Refused { .. }) => Ok(()),
        answer => bail!("not refused: {answer:?}"),
    }
}

#[tokio::test]
async fn a_user_reaches_its_own_keys_and_no_others() -> Result<()> {
    let etcd = Etcd::start().await?;
    etcd.require_passwords("windlass", "secret", "/windlass/")?;
    let store = as_user(&etcd, "windlass", "secret")?;
    let lease = store.grant(Duration::from_secs(30)).await?;
    let revision = commit(&store, vec![put("/windlass/k", "x")]).await?;
    store.renew(lease).await?;
    store.watch("/windlass/", revision).await?;
    assert_eq!(store.list("/windlass/", Page::ALL).await?.entries.len(), 1);

    refused(store.get("/other").await)?;
    refused(store.list("/", Page::ALL).await)?;
    refused(store.commit(Vec::new(), vec![put("/other", "x")]).await)?;
    refused(store.watch("/other/", revision).await)?;
    let wrong = as_user(&etcd, "windlass", "guessed")?;
    refused(wrong.get("/windlass/k").await)?;
    ensure!(!format!("{store:?}{wrong:?}").contains("secret"), "{store:?} shows a password");
    let nobody = EtcdStore::new(EtcdConfig::new(etcd.endpoints()))?;
    refused(nobody.get("/windlass/k").await)
}

#[tokio::test]
async fn a_token_that_expired_is_replaced() -> Result<()> {
    let etcd = Etcd::of(1, None, &["--auth-token-ttl", "1"]).await?;
    etcd.require_passwords("windlass", "secret", "/windlass/")?;
    let store = as_user(&etcd, "windlass", "secret")?;
    let lease = store.grant(Duration::from_secs(60)).await?;
    commit(&store, vec![put("/windlass/k", "x")]).await?;
    for _ in 0..3 {
        // Tokens live for a second, and are looked at every second.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        store.renew(lease).await?;
        let revision = commit(&store, vec![put("/windlass/k", "y")]).await?;
        store.watch("/windlass/", revision).await?;
        ensure!(store.get("/windlass/k").await?.is_some());
    }
    Ok(())
}

#[tokio::test]
async fn changed_rights_hold_for_those_who_are_connected() -> Result<()> {
    let etcd = Etcd::start().await?;
    etcd.require_passwords("windlass", "secret", "/windlass/")?;
    let store = as_user(&etcd, "windlass", "secret")?;
    refused(store.get("/more/k").await)?;
    let role = ["role", "grant-permission", "--prefix=true", "windlass", "readwrite", "/more/"];
    etcd.control(&[&["--user", "root:root"], role.as_slice()].concat())?;
    ensure!(store.get("/more/k").await?.is_none());
    commit(&store, vec![put("/more/k", "x")]).await?;
    Ok(())
}

#[tokio::test]
async fn certificates_are_asked_for_and_checked_on_both_sides() -> Result<()> {
    let [certificates, stranger] = [Certificates::generate()?, Certificates::generate()?];
    let [own, foreign] = [tempfile::tempdir()?, tempfile::tempdir()?];
    certificates.write(own.path())?;
    stranger.write(foreign.path())?;
    let [own, foreign] = [own.path(), foreign.path()];
    let etcd = Etcd::of(1, Some(&certificates), &[]).await?;
    let with = |ca: &Path, identity: Option<&Path>| -> Result<EtcdStore> {
        let file = |name: &str| identity.map(|folder| folder.join(name));
        let files = ClientTlsFiles::new(PemFile::new("etcd_ca", ca.join("ca.pem")))
            .with_identity(("etcd_certificate", file("client.pem")), ("etcd_key", file("client.key")))?;
        let timeout = Duration::from_secs(2);
        let config = EtcdConfig { tls: Some(files), timeout, ..EtcdConfig::new(etcd.endpoints()) };
        Ok(EtcdStore::new(config)?)
    };
    let store = with(own, Some(own))?;
    commit(&store, vec![put("/k", "x")]).await?;

    let cases = [
        (own, None, "etcd asks for another certificate"),
        (own, Some(foreign), "etcd asks for another certificate"),
        (foreign, Some(own), "etcd's certificate is not accepted"),
    ];
    for (ca, identity, expected) in cases {
        let error = with(ca, identity)?.get("/k").await.err().context("it was accepted")?;
        let said = error.to_string();
        ensure!(matches!(error, StoreError::Refused { .. }) && said.contains(expected), "{said}");
    }
    std::fs::write(foreign.join("client.key"), "no key")?;
    let error = with(own, Some(foreign)).err().context("no key is accepted")?.to_string();
    ensure!(error.starts_with("etcd_key: ") && error.contains("has no private key"), "{error}");
    let plain: Vec<_> = etcd.endpoints().iter().map(|url| url.replace("https", "http")).collect();
    let plain = EtcdStore::new(EtcdConfig { timeout: Duration::from_secs(1), ..EtcdConfig::new(plain) })?;
    eventually("without TLS nobody answers", || async { Ok(plain.get("/k").await.is_err()) }).await
}

#[tokio::test]
async fn what_can_never_work_is_refused_at_once() -> Result<()> {
    let cases = [
        (vec![], "etcd_endpoints: the list is empty"),
        (vec!["etcd:2379"], "'etcd:2379' is no endpoint: use http://host:port"),
        (vec!["http://etcd"], "'http://etcd' is no endpoint"),
        (vec!["https://etcd:2379"], "'https://etcd:2379' does not fit: use http://host:port, or set etcd_ca"),
    ];
    for (endpoints, expected) in cases {
        let endpoints = endpoints.into_iter().map(str::to_owned).collect();
        let error = EtcdStore::new(EtcdConfig::new(endpoints)).err().context("it cannot work")?;
        ensure!(error.to_string().contains(expected), "{error}");
    }
    Ok(())
}
