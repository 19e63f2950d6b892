//! Workers that break, and workers that go away.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
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
    let cluster = Cluster::start(2, &[]).await?;
    let body = long();
    let mut streams =
        Box::pin(try_join_all([&body, &body].map(|body| cluster.stream("/v1/completions", body))));
    let running = eventually("one on each worker", || async {
        Ok(cluster.load(0).await?.coda_rows_total > 10 && cluster.load(1).await?.coda_rows_total > 10)
    });
    tokio::select! {
        _ = &mut streams => anyhow::bail!("the streams ended early"),
        running = running => running?,
    }
    let pid = cluster.workers[0].id().to_string();
    ensure!(
        std::process::Command::new("kill").args(["-KILL", &pid]).status()?.success(),
        "cannot kill {pid}"
    );
    let streams = streams.await?;
    let failed = streams.iter().filter(|events| events.iter().any(|event| !event["error"].is_null())).count();
    assert_eq!(failed, 1, "exactly the killed worker's stream fails");
    for _ in 0..4 {
        let (status, answer) =
            cluster.post("/v1/completions", &json!({"model": "demo", "prompt": "7+5="})).await?;
        ensure!(status == 200, "{answer}");
    }
    ensure!(is_ready(&cluster).await?, "one worker is left and /ready is red");
    Ok(())
}
