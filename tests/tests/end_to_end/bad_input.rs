//! Bad input gets a clear error, and loses nothing.

use anyhow::Result;
use serde_json::{Value, json};
use windlass_tests::Cluster;

/// Path, body, status, `error.param`, part of the message.
fn table() -> Vec<(&'static str, Value, u16, Value, &'static str)> {
    let completions = "/v1/completions";
    let chat = "/v1/chat/completions";
    let with = |field: &str, value: Value| {
        let mut body = json!({"model": "demo", "prompt": "7+5="});
        body[field] = value;
        body
    };
    let adaptive = |field: &str, value: Value| {
        let mut policy = json!({"criterion": "latent-diff"});
        policy[field] = value;
        with("depth", json!({ "adaptive": policy }))
    };
    let hello = json!([{"role": "user", "content": "7+5="}]);
    vec![
        (completions, json!({"model": "demo"}), 400, json!("prompt"), "prompt"),
        (completions, with("model", json!("other")), 404, json!("model"), "demo"),
        (completions, with("colour", json!(1)), 400, json!("colour"), "colour"),
        (completions, with("max_tokens", json!(0)), 400, json!("max_tokens"), "at least 1"),
        (completions, with("max_tokens", json!(100_000)), 400, json!("max_tokens"), "context"),
        (completions, with("max_tokens", json!("many")), 400, json!("max_tokens"), "max_tokens"),
        (completions, with("prompt", json!([])), 400, json!("prompt"), "at least one"),
        (completions, with("prompt", json!([99])), 400, json!("prompt"), "99"),
        (completions, with("temperature", json!(-1)), 400, json!("temperature"), "-1"),
        (completions, with("top_p", json!(0)), 400, json!("top_p"), "above 0"),
        (completions, with("logit_bias", json!({"99": 1})), 400, json!("logit_bias"), "99"),
        (completions, with("depth", json!({"fixed": 0})), 400, json!("depth"), "1 to 64"),
        (completions, with("depth", json!({"fixed": 65})), 400, json!("depth"), "65"),
        (completions, with("depth", json!({"fastest": 1})), 400, json!("depth"), "fastest"),
        (
            completions,
            adaptive("criterion", json!("mood")),
            400,
            json!("depth.adaptive.criterion"),
            "latent-diff",
        ),
        (completions, adaptive("min", json!(20)), 400, json!("depth.adaptive.min"), "20"),
        (completions, adaptive("threshold", json!(-0.5)), 400, json!("depth.adaptive.threshold"), "-0.5"),
        (completions, adaptive("hurry", json!(true)), 400, json!("depth.adaptive.hurry"), "hurry"),
        (completions, with("kv", json!({"ring": 0})), 400, json!("kv"), "ring 0"),
        (completions, with("kv", json!("lots")), 400, json!("kv"), "lots"),
        (completions, with("stop", json!([""])), 400, json!("stop"), "stop"),
        (completions, with("n", json!(0)), 400, json!("n"), "1"),
        (completions, with("echo", json!(true)), 400, json!("echo"), "not supported"),
        (chat, json!({"model": "demo", "messages": []}), 400, json!("messages"), "messages"),
        (
            chat,
            json!({"model": "demo", "messages": hello, "tools": [{}]}),
            400,
            json!("tools"),
            "not supported",
        ),
        (
            chat,
            json!({"model": "demo", "messages": hello, "reasoning_effort": "extreme"}),
            400,
            json!("reasoning_effort"),
            "use one of low, medium, high",
        ),
    ]
}

#[tokio::test]
async fn every_bad_request_is_refused_by_name_and_leaves_nothing() -> Result<()> {
    let cluster = Cluster::start(1, &[]).await?;
    let mut wrong = Vec::new();
    for (path, body, status, param, part) in table() {
        let (got, answer) = cluster.post(path, &body).await?;
        let error = &answer["error"];
        let message = error["message"].as_str().unwrap_or_default();
        let names = error["param"] == param
            || error["param"].as_str().zip(param.as_str()).is_some_and(|(got, want)| got.starts_with(want));
        if got != status || !names || !message.contains(part) {
            wrong.push(format!("{body} gave {got} {error}, expected {status} {param} '{part}'"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (status, answer) =
        cluster.post("/v1/completions", &json!({"model": "demo", "prompt": "7+5="})).await?;
    assert_eq!(status, 200, "{answer}");
    cluster.is_idle().await
}

#[tokio::test]
async fn what_is_no_json_and_what_has_no_place_is_refused() -> Result<()> {
    let cluster = Cluster::start(1, &[]).await?;
    let client = reqwest::Client::new();
    let url = |path: &str| format!("{}{path}", cluster.http);
    let json = |body: &'static str| {
        client.post(url("/v1/completions")).header("content-type", "application/json").body(body)
    };
    for (request, status) in [
        (json("{"), 400),
        (json("[]"), 400),
        (client.post(url("/v1/completions")).body("{}"), 415),
        (client.get(url("/v1/completions")), 405),
        (client.get(url("/v2")), 404),
        (client.get(url("/v1/models/other")), 404),
    ] {
        let response = request.send().await?;
        assert_eq!(response.status().as_u16(), status);
        let body: Value = response.json().await?;
        assert!(body["error"]["message"].is_string(), "{body}");
    }
    Ok(())
}
