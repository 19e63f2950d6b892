//! Workers that are killed, frozen or cut off under 64 streams: every client gets what it would have got, each token once.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use windlass_tests::streams::{answers, requests};
use windlass_tests::{Cluster, Namespace, Server, binary, eventually};

const STREAMS: usize = 64;
const TOKENS: usize = 100;

fn worker(listen: &str) -> Vec<&str> {
    vec!["worker", "--listen", listen, "--model", "demo", "--threads", "1"]
}

/// Answers before and under the fault are alike; afterwards nothing of them is left at the `survivors`.
pub(super) async fn same_answers_under(
    cluster: &Cluster,
    survivors: &[usize],
    fault: impl FnOnce() -> Result<()>,
) -> Result<()> {
    same_answers_of(requests(STREAMS, TOKENS), cluster, survivors, fault).await
}

/// The same of these requests.
pub(super) async fn same_answers_of(
    requests: Vec<Value>,
    cluster: &Cluster,
    survivors: &[usize],
    fault: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let undisturbed = answers(cluster, &requests, &AtomicUsize::new(0)).await?;
    let begun = AtomicUsize::new(0);
    let disturbed = answers(cluster, &requests, &begun);
    let all_begun = eventually("all streams have begun", || async {
        Ok(begun.load(Ordering::SeqCst) == requests.len() && cluster.load(0).await?.running > 0)
    });
    tokio::pin!(disturbed);
    tokio::select! {
        ended = &mut disturbed => bail!("the streams ended before the fault: {}", ended.is_ok()),
        all_begun = all_begun => all_begun?,
    }
    fault()?;
    for (index, (disturbed, undisturbed)) in disturbed.await?.iter().zip(&undisturbed).enumerate() {
        ensure!(disturbed == undisturbed, "answer {index} was {disturbed:?}, undisturbed {undisturbed:?}");
        ensure!(undisturbed.token_ids.len() >= 30, "answer {index} is short");
    }
    ensure!(cluster.metric("windlass_migrations_total").await? > 0.0, "no stream was moved");
    cluster.are_idle(survivors).await?;
    cluster.coordinator_is_idle().await
}

fn signal(server: &Server, signal: &str) -> Result<()> {
    windlass_tests::signal(server.id(), signal)
}

#[tokio::test]
async fn a_killed_worker_changes_no_answer() -> Result<()> {
    let cluster = Cluster::start(3, &[]).await?;
    same_answers_under(&cluster, &[1, 2], || signal(&cluster.workers[0], "-KILL")).await
}

#[tokio::test]
async fn a_frozen_worker_changes_no_answer() -> Result<()> {
    let cluster = Cluster::start(3, &[]).await?;
    same_answers_under(&cluster, &[1, 2], || signal(&cluster.workers[0], "-STOP")).await?;
    signal(&cluster.workers[0], "-CONT")?;
    cluster.are_idle(&[0]).await?;
    cluster.all_ready().await
}

#[tokio::test]
async fn a_worker_that_is_cut_off_changes_no_answer_and_is_back_when_joined_again() -> Result<()> {
    let namespace = Namespace::create()?;
    let inside = format!("{}:0", namespace.inside);
    let mut command = namespace.command(&binary("windlass")?);
    command.args(worker(&inside));
    let workers = vec![
        Server::run(command)?,
        Server::windlass(&worker("127.0.0.1:0"))?,
        Server::windlass(&worker("127.0.0.1:0"))?,
    ];
    let cluster = Cluster::of(workers).await?;
    cluster.all_ready().await?;
    same_answers_under(&cluster, &[1, 2], || namespace.cut_off()).await?;
    namespace.join()?;
    cluster.all_ready().await?;
    cluster.are_idle(&[0]).await
}

#[tokio::test]
async fn a_worker_that_is_told_to_end_hands_its_streams_over_and_exits_with_0() -> Result<()> {
    let mut cluster = Cluster::start(3, &["--drain-deadline-s", "0"]).await?;
    let mut leaving = cluster.workers.remove(0);
    same_answers_under(&cluster, &[0, 1], || signal(&leaving, "-TERM")).await?;
    ensure!(leaving.wait()?, "it did not exit with 0");
    Ok(())
}
