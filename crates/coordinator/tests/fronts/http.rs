//! The HTTP front in front of scripted workers: shapes, streams, errors.

use crate::support::{FakeWorker, Front, Script};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

fn chunks(events: &[String]) -> Vec<Value> {
    assert_eq!(events.last().unwrap(), "[DONE]");
    events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

#[tokio::test]
async fn a_whole_completion_has_text_usage_and_what_was_asked_for_of_its_tokens() {
    let worker = FakeWorker::start(Script::says("12")).await;
    let front = Front::ready(&[&worker]).await;
    let body = json!({"model": "demo", "prompt": "7+5=", "max_tokens": 2, "seed": 9, "logprobs": 2,
        "return_depths": true, "return_exit_values": true, "return_token_ids": true});
    let (status, answer) = front.post("/v1/completions", &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["system_fingerprint"], concat!("windlass-", env!("CARGO_PKG_VERSION")));
    let expected = json!([{
        "index": 0, "text": "12", "finish_reason": "length", "seed": 9,
        "depths": [4, 5], "exit_values": [[0.75, 0.5], [0.75, 0.5]], "token_ids": [6, 7],
        "logprobs": {
            "tokens": ["1", "2"], "token_logprobs": [-0.25, -0.25], "text_offset": [0, 1],
            "top_logprobs": [{"1": -0.25, "=": -2.0}, {"2": -0.25, "=": -2.0}],
        },
    }]);
    assert_eq!(answer["choices"], expected);
    let usage = json!({
        "prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7,
        "completion_tokens_details": {"reasoning_tokens": 0},
        "core_iterations": {"prompt": 64, "completion": 9, "completion_limit": 32},
    });
    assert_eq!(answer["usage"], usage);
    assert_eq!(worker.requests()[0].prompt, [1, 12, 15, 10, 19]);
}

#[tokio::test]
async fn a_whole_chat_has_a_message_and_chat_logprobs() {
    let worker = FakeWorker::start(Script::says("6")).await;
    let front = Front::ready(&[&worker]).await;
    let messages = json!([{"role": "user", "content": [{"type": "text", "text": "1+5="}]}]);
    let body = json!({"messages": messages, "logprobs": true, "top_logprobs": 2, "max_completion_tokens": 1});
    let (status, answer) = front.post("/v1/chat/completions", &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["object"], "chat.completion");
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"], json!({"role": "assistant", "content": "6", "refusal": null}));
    assert_eq!(choice["finish_reason"], "length");
    let logprobs = json!({"refusal": null, "content": [{
        "token": "6", "logprob": -0.25, "bytes": [54],
        "top_logprobs": [
            {"token": "6", "logprob": -0.25, "bytes": [54]}, {"token": "=", "logprob": -2.0, "bytes": [61]}],
    }]});
    assert_eq!(choice["logprobs"], logprobs);
    assert_eq!(
        worker.requests()[0].prompt,
        [1, 6, 15, 10, 19],
        "the template adds bos, the tokenizer no second one"
    );
}

#[tokio::test]
async fn a_streamed_chat_is_role_then_deltas_then_finish_then_usage() {
    let worker = FakeWorker::start(Script::says("42")).await;
    let front = Front::ready(&[&worker]).await;
    let body = json!({"model": "demo", "messages": [{"role": "user", "content": "1"}], "stream": true, "seed": 3,
        "stream_options": {"include_usage": true}, "return_depths": true});
    let chunks = chunks(&front.events("/v1/chat/completions", &body).await);
    let choices: Vec<_> = chunks.iter().map(|chunk| chunk["choices"].clone()).collect();
    let choice = |delta: Value, extra: Value| {
        let mut choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": null});
        choice.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!([choice])
    };
    let expected = [
        choice(json!({"role": "assistant", "content": ""}), json!({"seed": 3})),
        choice(json!({"content": "4"}), json!({"depths": [4]})),
        choice(json!({"content": "2"}), json!({"depths": [5]})),
        choice(json!({}), json!({"finish_reason": "length", "seed": 3})),
        json!([]),
    ];
    assert_eq!(choices, expected);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == chunks[0]["id"])
    );
    assert!(chunks[..4].iter().all(|chunk| chunk["usage"].is_null()));
    assert_eq!(chunks[4]["usage"]["completion_tokens"], 2);
}

#[tokio::test]
async fn a_streamed_completion_reports_usage_in_every_chunk_if_asked() {
    let worker = FakeWorker::start(Script::says("42")).await;
    let front = Front::ready(&[&worker]).await;
    let body = json!({"prompt": "1", "stream": true,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let chunks = chunks(&front.events("/v1/completions", &body).await);
    let counts: Vec<_> =
        chunks.iter().map(|chunk| chunk["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 2, 2, 2]);
    let texts: Vec<_> =
        chunks[..3].iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["4", "2", ""]);
}

#[tokio::test]
async fn without_usage_asked_for_no_chunk_mentions_it() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = Front::ready(&[&worker]).await;
    let events = front.events("/v1/completions", &json!({"prompt": "1", "stream": true})).await;
    assert!(chunks(&events).iter().all(|chunk| chunk.get("usage").is_none()));
}

#[tokio::test]
async fn a_stop_string_ends_the_text_before_it_and_the_generation() {
    let mut script = Script::says("123456789");
    script.pause = std::time::Duration::from_millis(50);
    let worker = FakeWorker::start(script).await;
    let front = Front::ready(&[&worker]).await;
    let (_, answer) = front.post("/v1/completions", &json!({"prompt": "1", "stop": ["34", "9"]})).await;
    assert_eq!(answer["choices"][0]["text"], "12");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["completion_tokens"], 4);
    assert_eq!(
        answer["usage"]["core_iterations"],
        json!({"prompt": 16, "completion": 22, "completion_limit": 64})
    );
    crate::support::eventually(|| async {
        worker.seen.aborted.load(std::sync::atomic::Ordering::SeqCst) == 1
    })
    .await;
}

#[tokio::test]
async fn a_stop_token_has_a_depth_but_no_text() {
    let worker = FakeWorker::start(Script { ends_with_stop: true, ..Script::says("12") }).await;
    let front = Front::ready(&[&worker]).await;
    let (_, answer) = front.post("/v1/completions", &json!({"prompt": "1", "return_depths": true})).await;
    assert_eq!(answer["choices"][0]["text"], "1");
    assert_eq!(answer["choices"][0]["depths"], json!([4, 5]));
    assert_eq!(answer["usage"]["completion_tokens"], 2);
}

#[tokio::test]
async fn choices_of_all_prompts_are_numbered_in_order_and_seeded_one_after_the_other() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = Front::ready(&[&worker]).await;
    let (_, answer) = front.post("/v1/completions", &json!({"prompt": ["1", "22"], "n": 2, "seed": 7})).await;
    let choices = answer["choices"].as_array().unwrap();
    let numbered: Vec<_> = choices.iter().map(|c| (c["index"].as_u64(), c["seed"].as_u64())).collect();
    assert_eq!(numbered, [(Some(0), Some(7)), (Some(1), Some(8)), (Some(2), Some(7)), (Some(3), Some(8))]);
    assert_eq!(answer["usage"]["prompt_tokens"], 5);
}

#[tokio::test]
async fn a_workers_refusal_names_the_requests_own_field() {
    let details = ErrorDetails::with_bad_request_violation("max_tokens", "0 is out of range: use at least 1");
    let mut script = Script::says("");
    script.refusal = Some(Status::with_error_details(Code::InvalidArgument, "bad request", details));
    let worker = FakeWorker::start(script).await;
    let front = Front::ready(&[&worker]).await;
    let (status, answer) = front.post("/v1/completions", &json!({"prompt": "1", "max_tokens": 0})).await;
    assert_eq!(status, 400);
    let expected = json!({"error": {"message": "max_tokens: 0 is out of range: use at least 1",
        "type": "invalid_request_error", "param": "max_tokens", "code": "invalid_request"}});
    assert_eq!(answer, expected);
    let body = json!({"messages": [{"role": "user", "content": "1"}], "max_completion_tokens": 0});
    let (_, answer) = front.post("/v1/chat/completions", &body).await;
    assert_eq!(answer["error"]["param"], "max_completion_tokens");
    assert_eq!(answer["error"]["message"], "max_completion_tokens: 0 is out of range: use at least 1");
}

#[tokio::test]
async fn errors_have_their_status_and_openais_shape() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = Front::ready(&[&worker]).await;
    let (status, answer) = front.post("/v1/completions", &json!({"model": "gpt", "prompt": "1"})).await;
    assert_eq!((status, answer["error"]["param"].as_str()), (404, Some("model")));
    assert!(answer["error"]["message"].as_str().unwrap().contains("use one of demo"));
    assert_eq!(front.post("/v1/nothing", &json!({})).await.0, 404);
    let (status, answer) = front.post("/v1/models", &json!({})).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (405, Some("method_not_allowed")));
    let (status, _) = front.post("/v1/completions", &json!({"prompt": "1".repeat(5 << 20)})).await;
    assert_eq!(status, 413);
    let plain = reqwest::Client::new()
        .post(format!("{}/v1/completions", front.http))
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(plain.status(), 415);
    let (status, answer) = front.post("/v1/completions", &json!({"prompt": "1", "stop": [""]})).await;
    assert_eq!((status, answer["error"]["param"].as_str()), (400, Some("stop")));
    let body = json!({"messages": [{"role": "system", "content": "1"}]});
    let (status, answer) = front.post("/v1/chat/completions", &body).await;
    assert_eq!((status, answer["error"]["param"].as_str()), (400, Some("messages")));
}

#[tokio::test]
async fn a_worker_lost_in_mid_stream_is_told_in_the_stream() {
    let mut script = Script::says("42");
    script.lost = true;
    let worker = FakeWorker::start(script).await;
    let front = Front::ready(&[&worker]).await;
    let chunks = chunks(&front.events("/v1/completions", &json!({"prompt": "1", "stream": true})).await);
    assert_eq!(chunks.last().unwrap()["error"]["code"], "worker_lost");
    assert_eq!(front.post("/v1/completions", &json!({"prompt": "1"})).await.0, 503);
}

#[tokio::test]
async fn a_model_without_tokenizer_takes_and_gives_token_ids() {
    let worker = FakeWorker::start_with(Script::says("42"), false).await;
    let front = Front::ready(&[&worker]).await;
    let (status, answer) = front.post("/v1/completions", &json!({"prompt": "1"})).await;
    assert_eq!((status, answer["error"]["param"].as_str()), (400, Some("prompt")));
    assert!(answer["error"]["message"].as_str().unwrap().contains("token ids"), "{answer}");
    let (_, answer) =
        front.post("/v1/completions", &json!({"prompt": [1, 6], "return_token_ids": true})).await;
    assert_eq!(answer["choices"][0]["text"], "");
    assert_eq!(answer["choices"][0]["token_ids"], json!([9, 7]));
}

#[tokio::test]
async fn models_are_listed_and_found_by_name() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = Front::ready(&[&worker]).await;
    let list: Value = serde_json::from_str(&front.get("/v1/models").await.1).unwrap();
    assert_eq!((list["object"].as_str(), list["data"][0]["id"].as_str()), (Some("list"), Some("demo")));
    let one: Value = serde_json::from_str(&front.get("/v1/models/demo").await.1).unwrap();
    assert_eq!((one["object"].as_str(), one["max_model_len"].as_u64()), (Some("model"), Some(256)));
    assert_eq!(front.get("/v1/models/org%2Fother").await.0, 404);
    let (status, answer) = front.get("/v1/models/%ff").await;
    assert_eq!(status, 400);
    assert!(answer.contains("invalid_request_error"), "{answer}");
}

#[tokio::test]
async fn metrics_tell_of_requests_depths_and_workers() {
    let worker = FakeWorker::start(Script::says("42")).await;
    let front = Front::ready(&[&worker]).await;
    front.post("/v1/completions", &json!({"prompt": "1"})).await;
    front.post("/v1/completions", &json!({})).await;
    let page = front.get("/metrics").await.1;
    let rows = format!("windlass_core_rows_per_tick_bucket{{worker=\"{}\",le=\"8\"}} 3", worker.address);
    for part in [
        "# HELP windlass_generation_tokens_total ",
        "windlass_token_depth_bucket{model=\"demo\",le=\"4\"}",
        "windlass_request_success_total{model=\"demo\",finished_reason=\"length\"}",
        "windlass_request_failure_total{code=\"invalid_request\"}",
        "windlass_core_iterations_total{model=\"demo\",phase=\"prompt\"}",
        "windlass_core_iterations_saved_total{model=\"demo\"}",
        "windlass_num_requests_running{model=\"demo\"} 0",
        &rows,
    ] {
        assert!(page.contains(part), "no {part} in:\n{page}");
    }
}

#[tokio::test]
async fn texts_become_tokens_and_tokens_texts() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = Front::ready(&[&worker]).await;
    let (_, answer) = front.post("/tokenize", &json!({"prompt": "7="})).await;
    assert_eq!(answer, json!({"count": 3, "max_model_len": 256, "tokens": [1, 12, 19]}));
    let body = json!({"model": "demo", "prompt": "7=", "add_special_tokens": false});
    assert_eq!(front.post("/tokenize", &body).await.1["tokens"], json!([12, 19]));
    let (_, answer) = front.post("/detokenize", &json!({"tokens": [1, 12, 19]})).await;
    assert_eq!(answer, json!({"prompt": "<|begin_text|>7="}));
    let info: Value = serde_json::from_str(&front.get("/tokenizer_info").await.1).unwrap();
    assert_eq!((&info["bos_token"], &info["eos_token"]), (&json!("<|begin_text|>"), &json!("<|end_text|>")));
    assert!(info["chat_template"].as_str().unwrap().contains("messages"));
    for (path, body, param) in [
        ("/tokenize", json!({"prompt": "É"}), "prompt"),
        ("/tokenize", json!({"text": "7"}), "text"),
        ("/detokenize", json!({"tokens": [64]}), "tokens"),
        ("/detokenize", json!({}), "tokens"),
    ] {
        let (status, answer) = front.post(path, &body).await;
        assert_eq!((status, answer["error"]["param"].as_str()), (400, Some(param)), "{answer}");
    }
}
