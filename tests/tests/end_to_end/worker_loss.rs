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
    let mut cluster = Cluster::of(vec![Server::start(&binary("faulty-worker")?, &[])?]).await?;
    let body = long();
    let stream = cluster.stream("/v1/completions", &body);
    let watch = eventually("it runs", || async { Ok(cluster.load(0).await?.running == 1) });
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
    let (status, answer) = cluster.post("/v1/completions", &json!({"model": "demo", "prompt": "7+5="})).await?;
    ensure!(status == 503, "{status} {answer}");
    cluster.workers[0].kill()
}

#[tokio::test]
async fn a_killed_worker_ends_its_streams_and_the_other_serves_on() -> Result<()> {
    let mut cluster = Cluster::start(2, &[]).await?;
    let bodies = [long(), long()];
    let (mut first, mut second) = {
        let streams = bodies.iter().map(|body| Box::pin(cluster.stream("/v1/completions", body)));
        let mut streams: Vec<_> = streams.collect();
        let running = eventually("one on each worker", || async {
            Ok(cluster.load(0).await?.running == 1 && cluster.load(1).await?.running == 1)
        });
        let second = streams.pop().context("two streams")?;
        let first = streams.pop().context("two streams")?;
        let (mut first, mut second) = (first, second);
        tokio::select! {
            _ = &mut first => anyhow::bail!("a stream ended early"),
            _ = &mut second => anyhow::bail!("a stream ended early"),
            running = running => running?,
        }
        (first, second)
    };
    let pid = cluster.workers[0].id().to_string();
    ensure!(std::process::Command::new("kill").args(["-KILL", &pid]).status()?.success(), "cannot kill {pid}");
    let (first, second) = tokio::join!(&mut first, &mut second);
    let failed = [first?, second?].iter().filter(|events| events.iter().any(|event| !event["error"].is_null())).count();
    assert_eq!(failed, 1, "exactly the killed worker's stream fails");
    for _ in 0..4 {
        let (status, answer) = cluster.post("/v1/completions", &json!({"model": "demo", "prompt": "7+5="})).await?;
        ensure!(status == 200, "{answer}");
    }
    ensure!(is_ready(&cluster).await?, "one worker is left and /ready is red");
    cluster.workers[0].kill()
}
