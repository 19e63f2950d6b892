//! More requests than may run at once.

use std::time::Duration;

use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt;
use windlass_coordinator::CoordinatorConfig;
use windlass_proto::v1::inference_client::InferenceClient;
use windlass_proto::v1::{GenerateRequest, generate_request};

use crate::support::{FakeWorker, Front, Script, eventually};

/// A front that runs one request at a time.
async fn narrow(script: Script, change: impl FnOnce(&mut CoordinatorConfig)) -> (FakeWorker, Front) {
    let worker = FakeWorker::start(script).await;
    let front = Front::start_with(vec![worker.address.clone()], |config| {
        config.max_concurrent_requests = 1;
        change(config);
    })
    .await;
    front.wait_for_workers(1).await;
    (worker, front)
}

fn long() -> Script {
    Script { pause: Duration::from_millis(20), ..Script::says(&"4".repeat(50)) }
}

fn body() -> Value {
    json!({"prompt": "1"})
}

fn streamed() -> Value {
    json!({"prompt": "1", "stream": true})
}

#[tokio::test]
async fn a_request_over_the_limit_waits_until_one_ends() {
    let (worker, front) = narrow(long(), |_| {}).await;
    let running = front.send("/v1/completions", &streamed()).await;
    let second = body();
    let (ended, (status, _)) = tokio::join!(running.text(), front.post("/v1/completions", &second));
    assert!(ended.is_ok() && status == 200);
    assert_eq!(worker.requests().len(), 2);
    assert_eq!(
        front.post("/v1/completions", &json!({"prompt": "1", "n": 2})).await.0,
        400,
        "it can never run"
    );
}

#[tokio::test]
async fn what_asks_for_too_much_does_not_wait_to_be_told() {
    let endless = Script { pause: Duration::from_secs(3600), ..Script::says("44") };
    let (_worker, front) = narrow(endless, |config| {
        config.request_limits.max_prompt_tokens = Some(4);
        config.queue_timeout = Duration::from_millis(100);
    })
    .await;
    let _running = front.send("/v1/completions", &streamed()).await;
    let prompt = json!({"prompt": [1, 1, 1, 1, 1]});
    let stop = json!({"prompt": "1", "stop": vec!["a"; 17]});
    for (body, field) in [(prompt, "prompt"), (stop, "stop")] {
        let (status, answer) = front.post("/v1/completions", &body).await;
        assert_eq!((status, answer["error"]["param"].as_str()), (400, Some(field)), "{answer}");
    }
    assert_eq!(
        front.post("/v1/completions", &body()).await.0,
        429,
        "who asks for no more than there is waits"
    );
}

#[tokio::test]
async fn who_waits_goes_by_priority() {
    let (worker, front) = narrow(long(), |_| {}).await;
    let running = front.send("/v1/completions", &streamed()).await;
    let ask = |priority: i32| {
        let body = json!({"prompt": "1", "priority": priority, "max_tokens": 1});
        let url = format!("{}/v1/completions", front.http);
        tokio::spawn(
            async move { reqwest::Client::new().post(url).json(&body).send().await.unwrap().status() },
        )
    };
    let asked = [ask(-1), ask(3), ask(1)];
    // All of them wait before the first may go.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(worker.requests().len(), 1, "the first still runs");
    running.text().await.unwrap();
    for asked in asked {
        assert_eq!(asked.await.unwrap(), 200);
    }
    let priority = |request: &windlass_proto::v1::GenerateTaskRequest| request.parameters.as_ref()?.priority;
    let order: Vec<_> = worker.requests().iter().map(priority).collect();
    assert_eq!(order, [None, Some(3), Some(1), Some(-1)]);
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back_on_both_fronts() {
    let (_worker, front) = narrow(long(), |config| config.max_queued_requests = 0).await;
    let running = front.send("/v1/completions", &streamed()).await;
    let refused = front.send("/v1/completions", &body()).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["type"], "rate_limit_error");
    let mut client = InferenceClient::connect(format!("http://{}", front.grpc)).await.unwrap();
    let request =
        GenerateRequest { prompt: Some(generate_request::Prompt::Text("1".into())), ..Default::default() };
    let status = client.generate(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_retry_info().unwrap().retry_delay.unwrap() >= Duration::from_secs(1));
    drop(running);
    eventually(|| async { front.post("/v1/completions", &body()).await.0 == 200 }).await;
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_frees_its_place() {
    let (worker, front) = narrow(long(), |config| config.max_queued_requests = 1).await;
    let _running = front.send("/v1/completions", &streamed()).await;
    let waiting = body();
    let leaves = front.send("/v1/completions", &waiting);
    assert!(tokio::time::timeout(Duration::from_millis(200), leaves).await.is_err());
    eventually(|| async { front.post("/v1/completions", &body()).await.0 == 200 }).await;
    assert_eq!(worker.requests().len(), 2, "who left was never sent to a worker");
}

#[tokio::test]
async fn nobody_waits_longer_than_the_queue_or_the_request_allows() {
    let limit = Duration::from_millis(100);
    let (_worker, front) = narrow(long(), |config| config.queue_timeout = limit).await;
    let _running = front.send("/v1/completions", &streamed()).await;
    let (status, answer) = front.post("/v1/completions", &body()).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (429, Some("busy")), "{answer}");
    let (status, answer) = front.post("/v1/completions", &json!({"prompt": "1", "timeout_ms": 50})).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (504, Some("deadline_exceeded")), "{answer}");
}

#[tokio::test]
async fn what_can_never_fit_is_refused_at_once() {
    let (worker, front) = narrow(long(), |config| config.max_queued_core_iterations = Some(500)).await;
    let ask = async |body: Value| {
        let (status, answer) = front.post("/v1/completions", &body).await;
        (status, answer["error"]["param"].as_str().unwrap_or_default().to_owned(), answer.to_string())
    };
    let (status, param, told) = ask(json!({"prompt": "1", "max_tokens": 255})).await;
    assert!((status, param.as_str()) == (400, "max_tokens") && told.contains("use at most 254"), "{told}");
    let (status, param, told) = ask(json!({"prompt": vec![6; 256]})).await;
    assert!((status, param.as_str()) == (400, "prompt") && told.contains("use at most 255"), "{told}");
    // 16 × (2 + 30).
    let (status, param, told) = ask(json!({"prompt": "1", "max_tokens": 30})).await;
    assert!(
        (status, param.as_str()) == (400, "max_tokens") && told.contains("512 core iterations"),
        "{told}"
    );
    assert_eq!(worker.requests().len(), 0);
    assert_eq!(ask(json!({"prompt": "1", "max_tokens": 1})).await.0, 200);
}

#[tokio::test]
async fn a_grpc_deadline_is_passed_on() {
    let (worker, front) = narrow(Script::says("4"), |_| {}).await;
    let mut client = InferenceClient::connect(format!("http://{}", front.grpc)).await.unwrap();
    let prompt = Some(generate_request::Prompt::Text("1".into()));
    let mut request = tonic::Request::new(GenerateRequest { prompt, ..Default::default() });
    request.set_timeout(Duration::from_secs(9));
    client.generate(request).await.unwrap().into_inner().message().await.unwrap();
    let allowed = worker.requests()[0].parameters.as_ref().unwrap().timeout_ms.unwrap();
    assert!((1..=9000).contains(&allowed), "{allowed}");
}
