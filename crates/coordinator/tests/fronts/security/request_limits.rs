//! What one request may ask for.

use serde_json::{Value, json};
use windlass_client::{ClientError, GenerateRequest};

use super::{client, front};
use crate::support::{FakeWorker, Script};

#[tokio::test]
async fn a_request_for_too_much_is_refused_with_field_value_and_remedy() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = front(&worker, |config| {
        config.request_limits.max_prompt_tokens = Some(4);
        config.request_limits.max_n = 2;
    })
    .await;
    let many = |count: usize| (0..count).collect::<Vec<_>>();
    let biases: serde_json::Map<_, _> = (0..1025).map(|id| (id.to_string(), json!(1))).collect();
    let cases = [
        (json!({"prompt": "7+5="}), "prompt", "5 tokens exceed the server's limit of 4: send a shorter one"),
        (json!({"prompt": "1", "n": 3}), "n", "3 is out of range: use 1 to 2"),
        (json!({"prompt": "1", "n": 0}), "n", "0 is out of range: use 1 to 2"),
        (
            json!({"prompt": "1", "stop": vec!["a"; 17]}),
            "stop",
            "17 stop strings are too many: use at most 16",
        ),
        (json!({"prompt": "1", "stop": "a".repeat(1025)}), "stop", "has 1025 bytes: use at most 1024"),
        (
            json!({"prompt": "1", "stop_token_ids": many(1025)}),
            "stop_token_ids",
            "1025 stop tokens are too many",
        ),
        (json!({"prompt": "1", "logit_bias": biases}), "logit_bias", "1025 entries are too many"),
        (json!({"prompt": vec!["1"; 1025]}), "prompt", "1025 prompts exceed the server's limit of 1024"),
        (
            json!({"prompt": vec!["1"; 513], "n": 2}),
            "n",
            "513 prompts with 2 choices each (1026 sequences) exceed the server's limit of 1024",
        ),
    ];
    for (body, field, expected) in cases {
        let (status, answer) = front.post("/v1/completions", &body).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(status == 400 && message.contains(expected), "{answer}");
        assert_eq!(answer["error"]["param"], field, "{answer}");
    }
    let messages = vec![json!({"role": "user", "content": "1"}); 4097];
    let (status, answer) = front.post("/v1/chat/completions", &json!({"messages": messages})).await;
    assert!(status == 400 && answer["error"]["param"] == "messages", "{answer}");
    assert!(worker.requests().is_empty());
}

#[tokio::test]
async fn json_that_is_nested_too_deep_is_refused() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = front(&worker, |_| {}).await;
    let body = format!("{{\"prompt\": \"1\", \"suffix\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let request = reqwest::Client::new().post(format!("{}/v1/completions", front.http));
    let response = request.header("content-type", "application/json").body(body).send().await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(front.post("/v1/completions", &json!({"prompt": "1"})).await.0, 200);
}

#[tokio::test]
async fn a_body_larger_than_the_limit_is_refused_by_both_fronts() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = front(&worker, |config| config.request_limits.max_body_bytes = 1000).await;
    let prompt = "1".repeat(1000);
    let (status, answer): (u16, Value) = front.post("/v1/completions", &json!({"prompt": prompt})).await;
    assert_eq!((status, &answer["error"]["code"]), (413, &json!("payload_too_large")));
    assert!(answer["error"]["message"].as_str().unwrap().contains("exceeds 1000 bytes"), "{answer}");
    let refused = client(&front, None).await.generate_whole(GenerateRequest::text(&prompt)).await;
    let Err(ClientError::Failed { message, .. }) = refused else { panic!("{refused:?}") };
    assert!(message.contains("1000"), "{message}");
}
