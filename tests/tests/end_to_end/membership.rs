//! Workers that a coordinator finds through etcd.

use anyhow::{Result, ensure};
use serde_json::json;
use windlass_store::{EtcdConfig, EtcdStore, Page, Store};
use windlass_tests::etcd::{Etcd, away};
use windlass_tests::{Cluster, Server, eventually};

const PREFIX: &str = "/windlass/v1/main/workers/";

/// A worker that registers under this id.
pub(super) fn worker(etcd: &Etcd, id: &str) -> Result<Server> {
    let endpoints = etcd.endpoints().join(",");
    let fixed = ["worker", "--listen", "127.0.0.1:0", "--model", "demo", "--threads", "1"];
    let registry = ["--registry", "etcd", "--etcd-endpoints", &endpoints, "--worker-id", id];
    Server::windlass(
        &[fixed.as_slice(), &registry, &["--lease-ttl-s", "3", "--etcd-timeout-ms", "1000"]].concat(),
    )
}

/// A coordinator that finds these workers.
pub(super) fn cluster(etcd: &Etcd, workers: Vec<Server>) -> Result<Cluster> {
    let endpoints = etcd.endpoints().join(",");
    let listen = ["coordinator", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];
    let registry = ["--etcd-endpoints", &endpoints, "--etcd-timeout-ms", "1000"];
    let coordinator = Server::windlass(&[listen.as_slice(), &registry].concat())?;
    let http = format!("http://{}", coordinator.address("http://")?);
    let grpc = coordinator.address("grpc://")?.to_owned();
    Ok(Cluster { coordinator, workers, http, grpc })
}

/// Waits until the coordinator's metrics have this line.
pub(super) async fn metrics_have(cluster: &Cluster, line: &str) -> Result<()> {
    eventually(line, || async {
        let metrics = reqwest::get(format!("{}/metrics", cluster.http)).await?.text().await?;
        Ok(metrics.lines().any(|found| found == line))
    })
    .await
}

/// Waits until so many workers are ready.
pub(super) async fn has_workers(cluster: &Cluster, ready: usize) -> Result<()> {
    metrics_have(cluster, &format!("windlass_workers{{state=\"ready\"}} {ready}")).await
}

async fn answers(cluster: &Cluster) -> Result<()> {
    let body = json!({"model": "demo", "prompt": "7+5=", "max_tokens": 2});
    let (status, answer) = cluster.post("/v1/completions", &body).await?;
    ensure!(status == 200, "{answer}");
    Ok(())
}

/// Who is registered, in order.
pub(super) async fn registered(etcd: &Etcd) -> Result<Vec<String>> {
    let store = EtcdStore::new(EtcdConfig::new(etcd.endpoints()))?;
    let entries = store.list(PREFIX, Page::ALL).await?.entries;
    Ok(entries.into_iter().map(|entry| entry.key.replacen(PREFIX, "", 1)).collect())
}

#[tokio::test]
async fn workers_are_found_lost_and_let_go_through_etcd() -> Result<()> {
    let etcd = Etcd::start().await?;
    let mut cluster = cluster(&etcd, vec![worker(&etcd, "first")?])?;
    has_workers(&cluster, 1).await?;
    answers(&cluster).await?;
    cluster.workers.push(worker(&etcd, "second")?);
    has_workers(&cluster, 2).await?;
    // One that dies leaves with its lease.
    cluster.workers[0].kill()?;
    eventually("its entry is gone", || async { Ok(registered(&etcd).await? == ["second"]) }).await?;
    has_workers(&cluster, 1).await?;
    metrics_have(&cluster, "windlass_workers{state=\"unready\"} 0").await?;
    answers(&cluster).await?;
    // One that is told to end says so first.
    ensure!(cluster.workers[1].terminate()?, "it ends well");
    ensure!(registered(&etcd).await?.is_empty(), "its entry is gone when it is");
    Ok(())
}

#[tokio::test]
async fn requests_go_on_while_etcd_is_away_and_new_workers_join_when_it_is_back() -> Result<()> {
    let mut etcd = Etcd::start().await?;
    let mut cluster = cluster(&etcd, vec![worker(&etcd, "first")?])?;
    has_workers(&cluster, 1).await?;
    metrics_have(&cluster, "windlass_registry_up 1").await?;
    etcd.kill(0)?;
    metrics_have(&cluster, "windlass_registry_up 0").await?;
    cluster.workers.push(worker(&etcd, "second")?);
    // For longer than a lease lasts.
    let (start, away) = (std::time::Instant::now(), away()?);
    while start.elapsed() < away {
        answers(&cluster).await?;
    }
    has_workers(&cluster, 1).await?;
    etcd.restart(0).await?;
    has_workers(&cluster, 2).await?;
    metrics_have(&cluster, "windlass_registry_up 1").await?;
    eventually("both are registered", || async { Ok(registered(&etcd).await? == ["first", "second"]) })
        .await?;
    answers(&cluster).await
}

#[tokio::test]
async fn a_worker_whose_id_is_taken_ends_and_says_why() -> Result<()> {
    let etcd = Etcd::start().await?;
    let mut first = worker(&etcd, "same")?;
    eventually("it is registered", || async { Ok(registered(&etcd).await? == ["same"]) }).await?;
    let mut second = worker(&etcd, "same")?;
    ensure!(!second.wait()?, "it ends with an error");
    ensure!(registered(&etcd).await? == ["same"], "the first one stays");
    ensure!(first.terminate()?, "and ends well");
    Ok(())
}
