//! The same answer by every way in, alone or among others.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use windlass_client::{Client, Depth, GenerateOptions, GenerateRequest, Sampling};
use windlass_tests::Cluster;

const ADAPTIVE: &str = r#"{"adaptive": {"criterion": "latent-diff", "threshold": 0.03, "max": 24}}"#;

fn puzzle(i: usize) -> (String, String) {
    let digits = [7, 5, 3, 2, 9, 4, 8, 6, 3];
    let mut text = (i % 10).to_string();
    let mut value = i % 10;
    for step in 0..=i % 7 {
        let digit = digits[(i + step) % digits.len()];
        let (operation, next) = match (i + step) % 3 {
            0 => ('+', value + digit),
            1 => ('-', value + 10 - digit),
            _ => ('*', value * digit),
        };
        // An operation that changes nothing would be no puzzle.
        let (operation, next) = if next % 10 == value { ('+', value + digit) } else { (operation, next) };
        text.push(operation);
        text.push_str(&digit.to_string());
        value = next % 10;
    }
    (text + "=", value.to_string())
}

fn request(prompt: &str, stream: bool) -> Result<Value> {
    let depth: Value = serde_json::from_str(ADAPTIVE)?;
    Ok(json!({
        "model": "demo", "prompt": prompt, "max_tokens": 4, "temperature": 0, "depth": depth, "stream": stream,
        "return_depths": true, "return_token_ids": true,
    }))
}

#[tokio::test]
async fn answers_are_the_same_streamed_whole_batched_and_over_grpc() -> Result<()> {
    let cluster = Cluster::start(2, &[]).await?;
    let puzzles: Vec<_> = (0..40).map(puzzle).collect();
    let mut alone = Vec::new();
    for (prompt, _) in &puzzles {
        let (status, body) = cluster.post("/v1/completions", &request(prompt, false)?).await?;
        ensure!(status == 200, "{body}");
        alone.push(body["choices"][0].clone());
    }
    let right = puzzles.iter().zip(&alone).filter(|((_, answer), choice)| choice["text"] == **answer).count();
    // How many exactly, of a fixed sample, the tests of the demo model say.
    ensure!(right >= 39, "only {right} of 40 puzzles answered");

    let whole = try_join_all(
        puzzles
            .iter()
            .map(|(prompt, _)| async { cluster.post("/v1/completions", &request(prompt, false)?).await }),
    );
    let streamed = try_join_all(
        puzzles
            .iter()
            .map(|(prompt, _)| async { cluster.stream("/v1/completions", &request(prompt, true)?).await }),
    );
    let client = Client::connect(&cluster.grpc).await?;
    let grpc = try_join_all(puzzles.iter().map(|(prompt, _)| {
        let adaptive = windlass_client::Adaptive {
            threshold: Some(0.03),
            max: Some(24),
            ..windlass_client::Adaptive::new(windlass_client::Criterion::LatentDiff)
        };
        let options = GenerateOptions {
            max_tokens: Some(4),
            depth: Some(Depth::Adaptive(adaptive)),
            sampling: Sampling { temperature: Some(0.0), ..Sampling::default() },
            ..GenerateOptions::default()
        };
        client.generate_whole(GenerateRequest { options, ..GenerateRequest::text(prompt) })
    }));
    let (whole, streamed, grpc) = tokio::join!(whole, streamed, grpc);
    for ((((_, whole), events), grpc), alone) in whole?.iter().zip(streamed?).zip(grpc?).zip(&alone) {
        for field in ["text", "depths", "token_ids"] {
            assert_eq!(whole["choices"][0][field], alone[field], "{field} differs in a batch");
        }
        let text: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
        let depths: Vec<&Value> =
            events.iter().filter_map(|event| event["choices"][0]["depths"].as_array()).flatten().collect();
        assert_eq!(alone["text"], text, "streamed text differs");
        assert_eq!(json!(depths), alone["depths"], "streamed depths differ");
        assert_eq!(alone["text"], grpc.text, "text over gRPC differs");
        assert_eq!(json!(grpc.depths()), alone["depths"], "depths over gRPC differ");
    }
    cluster.is_idle().await
}

#[tokio::test]
async fn chats_report_usage_depths_and_logprobs() -> Result<()> {
    let cluster = Cluster::start(1, &[]).await?;
    let body = json!({
        "model": "demo", "messages": [{"role": "user", "content": "7+5-3*2="}], "reasoning_effort": "high",
        "temperature": 0, "max_completion_tokens": 4, "logprobs": true, "top_logprobs": 2, "return_depths": true,
        "kv": {"ring": 4},
    });
    let (status, answer) = cluster.post("/v1/chat/completions", &body).await?;
    ensure!(status == 200, "{answer}");
    let choice = &answer["choices"][0];
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!("8"), &json!("stop")));
    let depths: Vec<u64> =
        choice["depths"].as_array().context("no depths")?.iter().filter_map(Value::as_u64).collect();
    assert_eq!(answer["usage"]["core_iterations"]["completion"], depths.iter().sum::<u64>());
    assert_eq!(answer["usage"]["completion_tokens"], depths.len());
    let logprobs = choice["logprobs"]["content"].as_array().context("no logprobs")?;
    assert_eq!(logprobs[0]["token"], "8");
    assert_eq!(logprobs[0]["top_logprobs"].as_array().map(Vec::len), Some(2));

    let metrics = reqwest::get(format!("{}/metrics", cluster.http)).await?.text().await?;
    for name in [
        "windlass_generation_tokens_total",
        "windlass_token_depth_bucket",
        "windlass_core_rows_per_tick_bucket",
        // So that an alert sees the first.
        "windlass_request_failure_total{code=\"worker_lost\"} 0",
    ] {
        ensure!(metrics.contains(name), "/metrics lacks {name}");
    }
    Ok(())
}

#[tokio::test]
async fn sampled_answers_repeat_with_their_seed() -> Result<()> {
    let cluster = Cluster::start(2, &[]).await?;
    let body = |seed: Option<u64>| {
        json!({
            "model": "demo", "prompt": "ab bc", "max_tokens": 12, "temperature": 50, "ignore_eos": true, "seed": seed,
            "n": 3, "return_token_ids": true,
        })
    };
    let ids = |answer: &Value| (0..3).map(|i| answer["choices"][i]["token_ids"].clone()).collect::<Vec<_>>();
    let (_, drawn) = cluster.post("/v1/completions", &body(None)).await?;
    let seed = drawn["choices"][0]["seed"].as_u64().context("the seed is not reported")?;
    let (_, again) = cluster.post("/v1/completions", &body(Some(seed))).await?;
    assert_eq!(ids(&drawn), ids(&again));
    assert_ne!(ids(&drawn)[0], ids(&drawn)[1]);
    Ok(())
}
