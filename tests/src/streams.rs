//! Many streams at once, each compared with what it would have been.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::Cluster;

/// What one stream said, event by event put together.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// All text.
    pub text: String,
    /// All tokens.
    pub token_ids: Vec<u64>,
    /// The depth of each.
    pub depths: Vec<u64>,
    /// Why it ended.
    pub finish_reason: String,
    /// Of the chunk after the last.
    pub usage: Value,
}

/// Requests of every kind: all K/V policies, fixed and adaptive depths, greedy and sampled, of this many tokens each.
pub fn requests(count: usize, max_tokens: usize) -> Vec<Value> {
    let depths = [
        json!({"fixed": 12}),
        json!({"adaptive": {"criterion": "latent-diff", "threshold": 0.03, "max": 24}}),
        json!({"adaptive": {"criterion": "kl", "max": 16, "every": 4}}),
    ];
    let kvs = [json!("full"), json!({"ring": 4}), json!({"anchor": 2})];
    let request = |i: usize| {
        json!({
            "model": "demo", "prompt": format!("{}+{}-{}*2=", i % 10, (i / 3) % 10, (i / 7) % 10), "stream": true,
            "max_tokens": max_tokens, "ignore_eos": true, "depth": depths[i % 3], "kv": kvs[(i / 3) % 3], "seed": i,
            "temperature": if i.is_multiple_of(2) { 0.0 } else { 0.9 }, "repetition_penalty": 1.1,
            "return_depths": true, "return_token_ids": true, "stream_options": {"include_usage": true},
        })
    };
    (0..count).map(request).collect()
}

/// Sends all requests at once and reads every answer to its end; `begun` counts those that have said something.
pub async fn answers(cluster: &Cluster, requests: &[Value], begun: &AtomicUsize) -> Result<Vec<Answer>> {
    try_join_all(requests.iter().map(|request| answer(cluster, request, begun))).await
}

async fn answer(cluster: &Cluster, request: &Value, begun: &AtomicUsize) -> Result<Answer> {
    let client = reqwest::Client::new();
    let response = client.post(format!("{}/v1/completions", cluster.http)).json(request).send().await?;
    ensure!(response.status().is_success(), "status {}: {}", response.status(), response.text().await?);
    let mut chunks = response.bytes_stream();
    let mut text = String::new();
    while let Some(chunk) = chunks.next().await {
        if text.is_empty() {
            begun.fetch_add(1, Ordering::SeqCst);
        }
        text.push_str(std::str::from_utf8(&chunk?)?);
    }
    put_together(&text).with_context(|| format!("the answer to {request} was {text}"))
}

fn put_together(text: &str) -> Result<Answer> {
    let mut events: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    ensure!(events.pop() == Some("[DONE]"), "the stream does not end with [DONE]");
    let mut answer = Answer {
        text: String::new(),
        token_ids: Vec::new(),
        depths: Vec::new(),
        finish_reason: String::new(),
        usage: Value::Null,
    };
    for event in events {
        let event: Value = serde_json::from_str(event)?;
        ensure!(event["error"].is_null(), "it failed");
        let choice = &event["choices"][0];
        answer.text += choice["text"].as_str().unwrap_or_default();
        answer.token_ids.extend(numbers(&choice["token_ids"]));
        answer.depths.extend(numbers(&choice["depths"]));
        if let Some(reason) = choice["finish_reason"].as_str() {
            ensure!(answer.finish_reason.is_empty(), "it ended twice");
            answer.finish_reason = reason.to_owned();
        }
        if !event["usage"].is_null() {
            answer.usage = event["usage"].clone();
        }
    }
    Ok(answer)
}

fn numbers(list: &Value) -> impl Iterator<Item = u64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64)
}
