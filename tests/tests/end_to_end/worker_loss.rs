//! Workers that break, and workers that go away.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use windlass_tests::{Cluster, Server, binary, eventually};

fn long() -> serde_json::Value {
    json!({
        "model": "demo", "prompt": "7+5=", "max_tokens": 240, "ignore_eos": true, "stream": true, "depth": {"fixed": 64},
        "return_token_ids": true,
    })
}

async fn is_ready(cluster: &Cluster) -> Result<bool> {
    Ok(reqwest::get(format!("{}/ready", cluster.http)).await?.status().is_success())
}

#[tokio::test]
async fn a_panic_in_the_engine_ends_streams_with_an_error_and_turns_ready_red() -> Result<()> {
    let cluster = Cluster::of(vec![Server::start(&binary("faulty-worker")?, &[])?]).await?;
    let body = long();
    let stream = cluster.stream("/v1/completions", &body);
    let watch = eventually("it has tokens", || async { Ok(cluster.load(0).await?.coda_rows_total > 10) });
    tokio::pin!(stream);
    tokio::select! {
        _ = &mut stream => anyhow::bail!("the stream ended before the fault"),
        running = watch => running?,
    }
    let mut stdin = &cluster.workers[0].stdin;
    stdin.write_all(b"break\n")?;
    let events = stream.await?;
    let last = events.last().context("no events")?;
    ensure!(last["error"]["message"].is_string(), "the stream ends without an error: {last}");
    eventually("/ready is red", || async { Ok(!is_ready(&cluster).await?) }).await?;
    let (status, answer) =
        cluster.post("/v1/completions", &json!({"model": "demo", "prompt": "7+5="})).await?;
    ensure!(status == 503, "{status} {answer}");
    Ok(())
}

#[tokio::test]
async fn a_killed_worker_ends_its_streams_and_the_other_serves_on() -> Result<()> {
    // Slow ones, so that both streams are under way for longer than the test takes.
    let slow = || Server::start(&binary("faulty-worker")?, &[]);
    let cluster = Cluster::of(vec![slow()?, slow()?]).await?;
    cluster.all_ready().await?;
    let tokens = async |worker| Ok::<_, anyhow::Error>(cluster.load(worker).await?.coda_rows_total);
    let body = long();
    let streams = [&body, &body].map(|body| Box::pin(cluster.stream("/v1/completions", body)));
    let mut streams = futures::future::select_all(streams);
    let running =
        eventually("one on each worker", || async { Ok(tokens(0).await? > 10 && tokens(1).await? > 10) });
    tokio::select! {
        _ = &mut streams => anyhow::bail!("the streams ended early"),
        running = running => running?,
    }
    kill(cluster.workers[0].id())?;
    let (events, _, others) = streams.await;
    ensure!(events?.iter().any(|event| !event["error"].is_null()), "the killed worker's stream fails");
    let before = tokens(1).await?;
    let going_on = eventually("the other goes on", || async { Ok(tokens(1).await? > before + 2) });
    tokio::select! {
        (events, ..) = futures::future::select_all(others) => anyhow::bail!("the other ended: {events:?}"),
        going_on = going_on => going_on?,
    }
    for _ in 0..4 {
        let body = json!({"model": "demo", "prompt": "7+5=", "max_tokens": 2});
        let (status, answer) = cluster.post("/v1/completions", &body).await?;
        ensure!(status == 200, "{answer}");
    }
    ensure!(is_ready(&cluster).await?, "one worker is left and /ready is red");
    Ok(())
}

fn kill(pid: u32) -> Result<()> {
    let status = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
    ensure!(status.success(), "cannot kill {pid}");
    Ok(())
}
