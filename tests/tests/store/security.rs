//! Passwords, rights and certificates of etcd.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use windlass_store::{EtcdConfig, EtcdIdentity, EtcdPassword, EtcdStore, EtcdTls, Page, Store, StoreError};
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
    let certificates = Certificates::generate()?;
    let etcd = Etcd::of(1, Some(&certificates), &[]).await?;
    let with = |ca: &str, identity: Option<(&str, &str)>| {
        let identity = identity
            .map(|(certificate, key)| EtcdIdentity { certificate: certificate.into(), key: key.into() });
        let tls = Some(EtcdTls { ca: ca.into(), identity });
        EtcdStore::new(EtcdConfig {
            tls,
            timeout: Duration::from_secs(2),
            ..EtcdConfig::new(etcd.endpoints())
        })
    };
    let own = (certificates.client.as_str(), certificates.client_key.as_str());
    let store = with(&certificates.ca, Some(own))?;
    commit(&store, vec![put("/k", "x")]).await?;

    refused(with(&certificates.ca, None)?.get("/k").await).context("no certificate")?;
    let stranger = Certificates::generate()?;
    let foreign = (stranger.client.as_str(), stranger.client_key.as_str());
    refused(with(&certificates.ca, Some(foreign))?.get("/k").await).context("of another authority")?;
    refused(with(&stranger.ca, Some(own))?.get("/k").await).context("etcd is not trusted")?;
    refused(with("no certificate", Some(own)).map(|_| ()))?;
    refused(with(&certificates.ca, Some((own.0, "no key"))).map(|_| ()))?;
    let plain: Vec<_> = etcd.endpoints().iter().map(|url| url.replace("https", "http")).collect();
    let plain = EtcdStore::new(EtcdConfig { timeout: Duration::from_secs(1), ..EtcdConfig::new(plain) })?;
    eventually("without TLS nobody answers", || async { Ok(plain.get("/k").await.is_err()) }).await
}

#[tokio::test]
async fn what_can_never_work_is_refused_at_once() -> Result<()> {
    let cases = [
        (vec![], "the list of endpoints is empty"),
        (vec!["etcd:2379"], "'etcd:2379' is no endpoint: use http://host:port"),
        (vec!["http://etcd"], "'http://etcd' is no endpoint"),
        (vec!["https://etcd:2379"], "'https://etcd:2379' does not fit: without certificates use http://"),
    ];
    for (endpoints, expected) in cases {
        let endpoints = endpoints.into_iter().map(str::to_owned).collect();
        let error = EtcdStore::new(EtcdConfig::new(endpoints)).err().context("it cannot work")?;
        ensure!(error.to_string().contains(expected), "{error}");
    }
    Ok(())
}
