//! What one key may use.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use reqwest::header::RETRY_AFTER;
use serde_json::{Value, json};
use tonic::{Code, Request};
use tonic_types::StatusExt;
use windlass_client::{ClientError, GenerateRequest};
use windlass_proto::v1::generate_request;
use windlass_proto::v1::inference_client::InferenceClient;

use super::{KeyFile, client, front_with_keys, post};
use crate::support::{FakeWorker, Otherwise, Script, eventually};

#[tokio::test]
async fn a_key_gets_as_many_sequences_at_once_as_it_may() {
    let script = Script { pause: Duration::from_millis(50), ..Script::says(&"4".repeat(200)) };
    let worker = FakeWorker::start(script).await;
    let front = front_with_keys(&worker, &KeyFile::with("narrow", "max_concurrent_requests = 1\n")).await;
    let client = client(&front, Some("wl-narrow")).await;
    let mut running = Box::pin(client.generate(GenerateRequest::text("1")).await.unwrap());
    running.next().await.unwrap().unwrap();

    let refused = post(&front, "wl-narrow", "/v1/completions", &json!({"prompt": "1"})).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()[RETRY_AFTER]), (429, &"1".parse().unwrap()));
    let error = refused.json::<Value>().await.unwrap()["error"].clone();
    assert_eq!((&error["code"], &error["type"]), (&json!("rate_limit_exceeded"), &json!("rate_limit_error")));
    assert!(error["message"].as_str().unwrap().contains("'narrow' runs 1 of its 1"), "{error}");
    let refused = client.generate_whole(GenerateRequest::text("1")).await;
    assert!(matches!(refused, Err(ClientError::Busy { .. })), "{refused:?}");
    let never = post(&front, "wl-narrow", "/v1/completions", &json!({"prompt": "1", "n": 2})).await;
    assert_eq!(never.status(), 400);

    drop(running);
    eventually(|| async { client.generate(GenerateRequest::text("1")).await.is_ok() }).await;
}

#[tokio::test]
async fn a_request_over_the_rate_is_told_when_to_come_back_by_both_fronts() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = front_with_keys(&worker, &KeyFile::with("slow", "requests_per_minute = 1\n")).await;
    let body = json!({"prompt": "1"});
    assert_eq!(post(&front, "wl-slow", "/v1/completions", &body).await.status(), 200);
    let refused = post(&front, "wl-slow", "/v1/completions", &body).await;
    let seconds: u64 = refused.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!(refused.status() == 429 && (50..=60).contains(&seconds), "{seconds}");

    let mut grpc = InferenceClient::connect(format!("http://{}", front.grpc)).await.unwrap();
    let prompt = Some(generate_request::Prompt::Text("1".into()));
    let mut request = Request::new(windlass_proto::v1::GenerateRequest { prompt, ..Default::default() });
    request.metadata_mut().insert("authorization", "Bearer wl-slow".parse().unwrap());
    let status = grpc.generate(request).await.unwrap_err();
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap();
    assert!(status.code() == Code::ResourceExhausted && delay > Duration::from_secs(50), "{delay:?}");
    let page = front.get("/metrics").await.1;
    assert!(page.contains("windlass_key_limited_total{key=\"slow\",limit=\"requests\"} 2"), "{page}");
    assert!(page.contains("windlass_key_requests_total{key=\"slow\"} 1"), "{page}");
}

#[tokio::test]
async fn tokens_are_charged_once_they_are_known() {
    let worker = FakeWorker::start(Script::says("42")).await;
    let front = front_with_keys(&worker, &KeyFile::with("tokens", "tokens_per_minute = 6\n")).await;
    let body = json!({"prompt": "7+5="});
    assert_eq!(post(&front, "wl-tokens", "/v1/completions", &body).await.status(), 200);
    assert_eq!(post(&front, "wl-tokens", "/v1/completions", &body).await.status(), 429);
    // Five of the prompt and two of the answer.
    let page = front.get("/metrics").await.1;
    assert!(page.contains("windlass_key_tokens_total{key=\"tokens\"} 7"), "{page}");
}

#[tokio::test]
async fn a_prompt_that_a_worker_took_is_charged_though_its_client_left() {
    let mute = |number| if number == 0 { Otherwise::Mute } else { Otherwise::Waits };
    let worker = FakeWorker::start(Script { but: mute, ..Script::says("4") }).await;
    let front = front_with_keys(&worker, &KeyFile::with("left", "tokens_per_minute = 600\n")).await;
    let body = json!({"prompt": "7+5="});
    for aborted in 1..=2 {
        let leaves = async {
            eventually(|| async { worker.requests().len() == aborted }).await;
            // That it was taken goes back to the front.
            tokio::time::sleep(Duration::from_millis(300)).await;
        };
        tokio::select! {
            answer = post(&front, "wl-left", "/v1/completions", &body) => panic!("{answer:?}"),
            () = leaves => {}
        }
        eventually(|| async { worker.seen.aborted.load(Ordering::SeqCst) == aborted }).await;
        // Five of the first; the second waits to be taken.
        let charged = "windlass_key_tokens_total{key=\"left\"} 5\n";
        eventually(|| async { front.get("/metrics").await.1.contains(charged) }).await;
    }
}

#[tokio::test]
async fn a_request_of_which_a_choice_is_refused_costs_nothing() {
    let but = |number| if number == 0 { Otherwise::Mute } else { Otherwise::Refused };
    let worker = FakeWorker::start(Script { but, ..Script::says("4") }).await;
    let front = front_with_keys(&worker, &KeyFile::with("some", "tokens_per_minute = 600\n")).await;
    let body = json!({"prompt": "7+5=", "n": 2});
    assert_eq!(post(&front, "wl-some", "/v1/completions", &body).await.status(), 429);
    eventually(|| async { worker.seen.aborted.load(Ordering::SeqCst) == 1 }).await;
    let page = front.get("/metrics").await.1;
    assert!(page.contains("windlass_key_tokens_total{key=\"some\"} 0\n"), "{page}");
}

#[tokio::test]
async fn a_priority_above_the_keys_is_refused() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = front_with_keys(&worker, &KeyFile::with("low", "priority_max = -1\n")).await;
    let with = |priority: Value| json!({"prompt": "1", "priority": priority});
    assert_eq!(post(&front, "wl-low", "/v1/completions", &with(json!(-1))).await.status(), 200);
    for priority in [json!(0), Value::Null] {
        let refused = post(&front, "wl-low", "/v1/completions", &with(priority)).await;
        let error = refused.json::<Value>().await.unwrap()["error"].clone();
        assert_eq!(error["param"], "priority");
        assert!(error["message"].as_str().unwrap().ends_with("use at most -1"), "{error}");
    }
}
