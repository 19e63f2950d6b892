//! A client that goes away gives everything back.

use anyhow::{Result, ensure};
use futures::StreamExt;
use serde_json::json;
use windlass_client::{Client, Depth, GenerateOptions, GenerateRequest};
use windlass_tests::{Cluster, eventually};

#[tokio::test]
async fn dropped_streams_free_their_blocks() -> Result<()> {
    let cluster = Cluster::start(1, &[]).await?;
    let http = json!({
        "model": "demo", "prompt": "7+5=", "max_tokens": 200, "ignore_eos": true, "stream": true, "depth": {"fixed": 64},
    });
    let response =
        reqwest::Client::new().post(format!("{}/v1/completions", cluster.http)).json(&http).send().await?;
    let mut http = response.bytes_stream();
    let options = GenerateOptions {
        max_tokens: Some(200),
        ignore_eos: true,
        depth: Some(Depth::Fixed(64)),
        ..GenerateOptions::default()
    };
    let client = Client::connect(&cluster.grpc).await?;
    let request = GenerateRequest { options, ..GenerateRequest::text("7+5=") };
    let mut grpc = Box::pin(client.generate(request).await?);
    ensure!(http.next().await.is_some() && grpc.next().await.is_some(), "no first token");
    eventually("both run", || async { Ok(cluster.load(0).await?.running == 2) }).await?;
    ensure!(cluster.load(0).await?.blocks_used > 0, "running requests hold no blocks");
    drop((http, grpc));
    cluster.is_idle().await
}

#[tokio::test]
async fn sigterm_lets_running_answers_finish() -> Result<()> {
    let mut cluster = Cluster::start(1, &[]).await?;
    let body = json!({
        "model": "demo", "prompt": "7+5=", "max_tokens": 100, "ignore_eos": true, "stream": true, "temperature": 0,
        "depth": {"fixed": 32}, "return_token_ids": true,
    });
    let running = cluster.stream("/v1/completions", &body);
    let stop = async { eventually("it runs", || async { Ok(cluster.load(0).await?.running == 1) }).await };
    let (events, stopped) = tokio::join!(running, stop);
    stopped?;
    let tokens = |events: &[serde_json::Value]| {
        let ids = events.iter().filter_map(|event| event["choices"][0]["token_ids"].as_array());
        ids.map(Vec::len).sum::<usize>()
    };
    assert_eq!(tokens(&events?), 100);
    ensure!(cluster.coordinator.terminate()?, "the coordinator did not exit with 0");
    ensure!(cluster.workers[0].terminate()?, "the worker did not exit with 0");
    Ok(())
}
