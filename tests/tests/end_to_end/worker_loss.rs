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
async fn a_panic_in_the_engine_ends_streams_with_an_error_turns_ready_red_and_shows_in_the_exit_status()
-> Result<()> {
    // Nobody can take the stream over, so it need not wait for long.
    let workers = vec![Server::start(&binary("faulty-worker")?, &[])?];
    let mut cluster = Cluster::with(workers, &["--migration-patience-ms", "500"]).await?;
    let body = long();
    let events = {
        let stream = cluster.stream("/v1/completions", &body);
        let watch = eventually("it has tokens", || async { Ok(cluster.load(0).await?.coda_rows_total > 10) });
        tokio::pin!(stream);
        tokio::select! {
            _ = &mut stream => anyhow::bail!("the stream ended before the fault"),
            running = watch => running?,
        }
        let mut stdin = &cluster.workers[0].stdin;
        stdin.write_all(b"break\n")?;
        stream.await?
    };
    let last = events.last().context("no events")?;
    ensure!(last["error"]["message"].is_string(), "the stream ends without an error: {last}");
    eventually("/ready is red", || async { Ok(!is_ready(&cluster).await?) }).await?;
    let (status, answer) =
        cluster.post("/v1/completions", &json!({"model": "demo", "prompt": "7+5="})).await?;
    ensure!(status == 503, "{status} {answer}");
    let mut sound = Server::start(&binary("faulty-worker")?, &[])?;
    ensure!(sound.terminate()?, "one whose engine is sound did not exit with 0");
    ensure!(!cluster.workers[0].terminate()?, "it exited with 0");
    Ok(())
}

/// The token ids of a stream that ended well.
fn token_ids(events: &[serde_json::Value]) -> Result<Vec<u64>> {
    let mut ids = Vec::new();
    for event in events {
        ensure!(event["error"].is_null(), "the stream fails: {event}");
        for choice in event["choices"].as_array().into_iter().flatten() {
            let numbers = choice["token_ids"].as_array().into_iter().flatten();
            ids.extend(numbers.filter_map(serde_json::Value::as_u64));
        }
    }
    Ok(ids)
}

#[tokio::test]
async fn a_killed_workers_stream_goes_on_at_the_other_with_the_same_tokens() -> Result<()> {
    // Slow ones, so that the stream is under way for longer than the kill takes.
    let slow = || Server::start(&binary("faulty-worker")?, &[]);
    let cluster = Cluster::of(vec![slow()?, slow()?]).await?;
    cluster.all_ready().await?;
    let mut body = long();
    body["max_tokens"] = json!(60);
    body["seed"] = json!(7);
    let undisturbed = token_ids(&cluster.stream("/v1/completions", &body).await?)?;
    ensure!(undisturbed.len() == 60, "{} tokens", undisturbed.len());
    let before = [cluster.load(0).await?.coda_rows_total, cluster.load(1).await?.coda_rows_total];
    let stream = cluster.stream("/v1/completions", &body);
    tokio::pin!(stream);
    let busy = async |worker: usize| {
        Ok::<_, anyhow::Error>(cluster.load(worker).await?.coda_rows_total > before[worker] + 10)
    };
    let running = eventually("it has tokens", || async { Ok(busy(0).await? || busy(1).await?) });
    tokio::select! {
        _ = &mut stream => anyhow::bail!("the stream ended early"),
        running = running => running?,
    }
    let (killed, other) = if busy(0).await? { (0, 1) } else { (1, 0) };
    windlass_tests::signal(cluster.workers[killed].id(), "-KILL")?;
    let events = stream.await?;
    ensure!(token_ids(&events)? == undisturbed, "the tokens differ from those of an undisturbed stream");
    ensure!(busy(other).await?, "the other worker did nothing");
    for _ in 0..4 {
        let body = json!({"model": "demo", "prompt": "7+5=", "max_tokens": 2});
        let (status, answer) = cluster.post("/v1/completions", &body).await?;
        ensure!(status == 200, "{answer}");
    }
    ensure!(is_ready(&cluster).await?, "one worker is left and /ready is red");
    Ok(())
}
