//! Jobs that several coordinators share through etcd are finished, whoever dies.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use tempfile::TempDir;
use windlass_client::{Client, Job};
use windlass_tests::etcd::{Etcd, away};
use windlass_tests::{Server, eventually};

use super::jobs::{coordinator_with, is_whole, some_are_done, submit};
use super::membership::worker;

/// etcd, and what coordinators share beside it.
struct Cluster {
    etcd: Etcd,
    folder: TempDir,
    _workers: [Server; 2],
}

impl Cluster {
    async fn start() -> Result<Self> {
        let etcd = Etcd::start().await?;
        let workers = [worker(&etcd, "first")?, worker(&etcd, "second")?];
        Ok(Self { etcd, folder: tempfile::tempdir()?, _workers: workers })
    }

    async fn coordinator(&self) -> Result<(Server, Client)> {
        let endpoints = self.etcd.endpoints().join(",");
        let url = format!("file://{}", self.folder.path().join("jobs").display());
        let arguments = ["--etcd-endpoints", &endpoints, "--etcd-timeout-ms", "1000", "--jobs-url", &url];
        coordinator_with(&arguments, self.folder.path()).await
    }
}

/// Waits until the job has ended, and checks that it did not before `fault_ms`, and all of its results.
async fn ends_whole(client: &Client, job: &Job, fault_ms: u128, output: &Path) -> Result<()> {
    eventually("the job has ended", || async { Ok(client.get_job(&job.id).await?.ended_ms.is_some()) })
        .await?;
    let ended_ms = client.get_job(&job.id).await?.ended_ms.map(u128::from);
    ensure!(ended_ms > Some(fault_ms), "it was over before the fault");
    is_whole(client, &job.id, output).await
}

fn now_ms() -> Result<u128> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())
}

#[tokio::test]
async fn another_coordinator_finishes_the_jobs_of_one_that_was_killed() -> Result<()> {
    let cluster = Cluster::start().await?;
    let (mut first, client) = cluster.coordinator().await?;
    let (_second, other) = cluster.coordinator().await?;
    let output = cluster.folder.path().join("out.jsonl");
    let job = submit(&client, &output).await?;
    some_are_done(&client, &job.id).await?;
    let fault_ms = now_ms()?;
    first.kill()?;
    ends_whole(&other, &job, fault_ms, &output).await
}

#[tokio::test]
async fn etcd_that_is_away_for_a_while_costs_a_job_no_item_and_doubles_none() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let (_coordinator, client) = cluster.coordinator().await?;
    let output = cluster.folder.path().join("out.jsonl");
    let job = submit(&client, &output).await?;
    some_are_done(&client, &job.id).await?;
    let fault_ms = now_ms()?;
    cluster.etcd.kill(0)?;
    tokio::time::sleep(away()?).await;
    cluster.etcd.restart(0).await?;
    ends_whole(&client, &job, fault_ms, &output).await
}
