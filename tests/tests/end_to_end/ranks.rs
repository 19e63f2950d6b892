//! Workers of several ranks, as threads and as processes on one machine.

use std::sync::atomic::AtomicUsize;

use anyhow::{Result, ensure};
use tonic::transport::Channel;
use windlass_proto::v1::worker_client::WorkerClient;
use windlass_proto::v1::{HealthRequest, InfoRequest};
use windlass_tests::ranks::{Rank, first_rank, group, group_of_stages};
use windlass_tests::streams::{answers, requests};
use windlass_tests::{Cluster, Server, eventually};
use windlass_transport::test_certificates::Authority;

use crate::faults::same_answers_of;

const RANK_1: [&str; 6] = ["--rank", "1", "--model", "demo", "--threads", "1"];

/// A worker with so many ranks in its one process.
fn threads(ranks: usize) -> Result<Server> {
    let ranks = ranks.to_string();
    Server::windlass(&[
        "worker",
        "--listen",
        "127.0.0.1:0",
        "--model",
        "demo",
        "--threads",
        "2",
        "--tp",
        &ranks,
    ])
}

async fn client(worker: &Server) -> Result<WorkerClient<Channel>> {
    Ok(WorkerClient::connect(format!("http://{}", worker.address("listening on ")?)).await?)
}

async fn fingerprint(worker: &Server) -> Result<String> {
    let info = client(worker).await?.info(InfoRequest {}).await?.into_inner();
    Ok(info.model.unwrap_or_default().fingerprint)
}

async fn is_dead(worker: &Server) -> Result<()> {
    eventually("the worker is dead", || async {
        Ok(client(worker).await?.health(HealthRequest {}).await.is_err())
    })
    .await
}

#[tokio::test]
async fn a_lost_rank_loses_its_worker_and_changes_no_answer() -> Result<()> {
    let (first, mut others) = group(2, &[])?;
    let in_one_process = threads(2)?;
    ensure!(fingerprint(&first).await? == fingerprint(&in_one_process).await?, "processes matter");
    ensure!(fingerprint(&first).await? != fingerprint(&threads(3)?).await?, "the number of ranks does not");
    let mut cluster = Cluster::of(vec![first, in_one_process]).await?;
    cluster.all_ready().await?;
    let lost = others.remove(0);
    same_answers_of(requests(16, 60), &cluster, &[1], || lost.signal("-KILL")).await?;
    is_dead(&cluster.workers[0]).await?;
    ensure!(!cluster.workers[0].terminate()?, "the worker exited with 0");
    Ok(())
}

#[tokio::test]
async fn stages_may_be_processes_too() -> Result<()> {
    let (first, mut others) = group_of_stages((2, 2), &[])?;
    let in_one_process = threads(2)?;
    ensure!(fingerprint(&first).await? == fingerprint(&in_one_process).await?, "stages matter");
    let mut cluster = Cluster::of(vec![first, in_one_process]).await?;
    cluster.all_ready().await?;
    // The second rank of the second stage.
    let lost = others.remove(2);
    same_answers_of(requests(16, 60), &cluster, &[1], || lost.signal("-KILL")).await?;
    is_dead(&cluster.workers[0]).await?;
    for rank in others {
        let (ended_well, said) = rank.wait()?;
        ensure!(!ended_well && said.contains("the group is lost: rank 3 is lost"), "a rank said {said}");
    }
    ensure!(!cluster.workers[0].terminate()?, "the worker exited with 0");
    for ranks in [1, 2] {
        let (mut first, others) = group_of_stages((ranks, 2), &[])?;
        ensure!(first.terminate()?, "rank 0 did not exit with 0");
        for rank in others {
            let (ended_well, said) = rank.wait()?;
            ensure!(ended_well, "a rank said {said}");
        }
    }
    Ok(())
}

/// It is told how by gRPC.
#[tokio::test]
async fn a_last_stage_in_another_process_draws_what_one_process_does() -> Result<()> {
    let (first, _others) = group_of_stages((1, 2), &[])?;
    let of_two = Cluster::of(vec![first]).await?;
    let of_one = Cluster::of(vec![threads(1)?]).await?;
    let (requests, begun) = (requests(8, 20), AtomicUsize::new(0));
    let [two, one] = [answers(&of_two, &requests, &begun).await?, answers(&of_one, &requests, &begun).await?];
    ensure!(two == one, "two processes say {two:?}, one {one:?}");
    Ok(())
}

#[tokio::test]
async fn a_frozen_rank_is_lost_even_while_nothing_runs_and_takes_all_others_with_it() -> Result<()> {
    let (mut first, mut others) = group(3, &["--rank-timeout-ms", "1000"])?;
    let frozen = others.remove(1);
    frozen.signal("-STOP")?;
    is_dead(&first).await?;
    let (ended_well, said) = others.remove(0).wait()?;
    ensure!(!ended_well && said.contains("the group is lost: rank 2 is lost"), "rank 1 said {said}");
    ensure!(!first.terminate()?, "rank 0 exited with 0");
    Ok(())
}

#[tokio::test]
async fn ranks_end_with_their_worker() -> Result<()> {
    let (mut first, others) = group(3, &[])?;
    // Told to end first, as where all processes are: they wait for the worker.
    others.iter().try_for_each(|rank| rank.signal("-TERM"))?;
    ensure!(first.terminate()?, "rank 0 did not exit with 0");
    for rank in others {
        let (ended_well, said) = rank.wait()?;
        ensure!(ended_well, "a rank said {said}");
    }
    let (mut first, mut others) = group(2, &[])?;
    first.kill()?;
    let (ended_well, said) = others.remove(0).wait()?;
    ensure!(!ended_well && said.contains("the group is lost: rank 0 is lost"), "rank 1 said {said}");
    Ok(())
}

#[tokio::test]
async fn ranks_that_do_not_fit_are_refused_and_the_group_forms_without_them() -> Result<()> {
    let (mut first, join) = first_rank(2, &[])?;
    let bf16 = [&["--join", &join, "--weights", "bf16"][..], &RANK_1].concat();
    let (ended_well, said) = Rank::start(&bf16)?.wait()?;
    ensure!(!ended_well && said.contains("build of windlass differ from those of rank 0"), "{said}");
    let beyond = ["--join", &join, "--rank", "2", "--model", "demo", "--threads", "1"];
    let (ended_well, said) = Rank::start(&beyond)?.wait()?;
    ensure!(!ended_well && said.contains("rank is 2: use 1 to 1"), "{said}");
    let _fits = Rank::start(&[&["--join", &join][..], &RANK_1].concat())?;
    first.hear()?;
    let (ended_well, said) = Rank::start(&[&["--join", &join][..], &RANK_1].concat())?.wait()?;
    ensure!(!ended_well && said.contains("rank 1 is taken"), "{said}");
    let requests_port = first.address("listening on ")?.to_owned();
    let (ended_well, said) = Rank::start(&[&["--join", &requests_port][..], &RANK_1].concat())?.wait()?;
    ensure!(!ended_well && said.contains("takes no ranks"), "{said}");
    client(&first).await?.health(HealthRequest {}).await?;
    Ok(())
}

#[tokio::test]
async fn ranks_join_by_mutual_tls() -> Result<()> {
    let authority = Authority::new("authority of the ranks");
    let [worker, rank] = [authority.issue("worker", &["worker.internal"]), authority.issue("rank", &[])];
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let [ca, certificate, key] = [&authority.ca, &worker.certificate, &worker.key].map(|file| path(file));
    let tls = ["--tls-certificate", &certificate, "--tls-key", &key, "--tls-client-ca", &ca];
    let (mut first, join) = first_rank(2, &tls)?;
    let [certificate, key] = [&rank.certificate, &rank.key].map(|file| path(file));
    let shown = ["--join-certificate", &certificate, "--join-key", &key];
    let expected = ["--join", &join, "--join-ca", &ca, "--join-tls-name", "worker.internal"];
    let (ended_well, said) = Rank::start(&[&expected[..], &RANK_1].concat())?.wait()?;
    ensure!(!ended_well && said.contains("rank 0 asks for another certificate"), "{said}");
    let unnamed = [&["--join", &join, "--join-ca", &ca][..], &shown, &RANK_1].concat();
    let (ended_well, said) = Rank::start(&unnamed)?.wait()?;
    ensure!(!ended_well && said.contains("join_tls_name a name it carries"), "{said}");
    let _rank = Rank::start(&[&expected[..], &shown, &RANK_1].concat())?;
    first.hear()
}
