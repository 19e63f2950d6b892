//! Workers that are busy, dead, slow or gone; clients that leave; a coordinator that stops.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::support::{FakeWorker, Front, Otherwise, Script, eventually};
use futures::StreamExt;
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

fn slow(text: &str) -> Script {
    Script { pause: Duration::from_millis(50), ..Script::says(text) }
}

fn refusing(status: Status) -> Script {
    Script { refusal: Some(status), ..Script::says("") }
}

#[tokio::test]
async fn a_busy_worker_is_passed_over() {
    let busy = FakeWorker::start(refusing(Status::resource_exhausted("queue is full"))).await;
    let free = FakeWorker::start(Script::says("4")).await;
    let front = Front::ready(&[&busy, &free]).await;
    for served in 1.. {
        assert_eq!(front.post("/v1/completions", &json!({"prompt": "1"})).await.0, 200);
        assert_eq!(free.requests().len(), served);
        // Equal workers are drawn.
        if !busy.requests().is_empty() {
            break;
        }
    }
}

#[tokio::test]
async fn if_all_workers_are_busy_each_was_asked_once_and_the_client_is_told_to_wait() {
    let workers = [
        FakeWorker::start(refusing(Status::resource_exhausted("queue is full"))).await,
        FakeWorker::start(refusing(Status::unavailable("draining"))).await,
    ];
    let front = Front::ready(&[&workers[0], &workers[1]]).await;
    let response = front.send("/v1/completions", &json!({"prompt": "1"})).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(workers.each_ref().map(|worker| worker.requests().len()), [1, 1]);
}

/// A worker with too little memory for any request.
fn small() -> Script {
    let details = ErrorDetails::with_bad_request_violation("max_tokens", "need 9 K/V blocks and there are 3");
    refusing(Status::with_error_details(Code::FailedPrecondition, "too large", details))
}

#[tokio::test]
async fn what_one_worker_cannot_hold_goes_to_a_larger_one_and_is_refused_if_there_is_none() {
    let too_small = [FakeWorker::start(small()).await, FakeWorker::start(small()).await];
    let large = FakeWorker::start(Script::says("4")).await;
    let front = Front::ready(&[&too_small[0], &too_small[1], &large]).await;
    let asked = || too_small.iter().all(|worker| !worker.requests().is_empty());
    // Equal workers are drawn.
    while !asked() {
        assert_eq!(front.post("/v1/completions", &json!({"prompt": "1"})).await.0, 200);
    }
    let front = Front::ready(&[&too_small[0], &too_small[1]]).await;
    let (status, answer) = front.post("/v1/completions", &json!({"prompt": "1"})).await;
    assert_eq!((status, answer["error"]["param"].as_str()), (400, Some("max_tokens")), "{answer}");
    assert_eq!(answer["error"]["message"], "max_tokens: need 9 K/V blocks and there are 3");
}

#[tokio::test]
async fn a_worker_that_cannot_serve_leaves_503() {
    let worker = FakeWorker::start(refusing(Status::unavailable("draining"))).await;
    let front = Front::ready(&[&worker]).await;
    assert_eq!(front.post("/v1/completions", &json!({"prompt": "1"})).await.0, 503);
}

#[tokio::test]
async fn a_request_that_waits_to_be_taken_by_an_engine_that_fails_is_told_to_come_again() {
    let worker = FakeWorker::start(Script { but: |_| Otherwise::Waits, ..Script::says("") }).await;
    let front = Front::ready(&[&worker]).await;
    let body = json!({"prompt": "1"});
    let fails = async {
        eventually(|| async { worker.requests().len() == 1 }).await;
        worker.seen.healthy.store(false, Ordering::SeqCst);
    };
    let ((status, answer), ()) = tokio::join!(front.post("/v1/completions", &body), fails);
    assert_eq!((status, answer["error"]["code"].as_str()), (503, Some("unavailable")), "{answer}");
}

#[tokio::test]
async fn readiness_follows_the_hearts_of_the_workers() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = Front::ready(&[&worker]).await;
    assert_eq!(front.get("/ready").await.0, 200);
    worker.seen.healthy.store(false, Ordering::SeqCst);
    let told = format!("{}: engine is dead", worker.address);
    eventually(|| async { front.get("/ready").await.1.contains(&told) }).await;
    assert_eq!(front.get("/ready").await.0, 503);
    worker.seen.healthy.store(true, Ordering::SeqCst);
    eventually(|| async { front.get("/health").await.0 == 200 }).await;
    assert_eq!(front.get("/live").await.0, 200);
}

#[tokio::test]
async fn a_dead_worker_makes_the_server_unready_but_alive() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = Front::ready(&[&worker]).await;
    drop(worker);
    eventually(|| async { front.get("/ready").await.0 == 503 }).await;
    assert_eq!(front.get("/live").await.0, 200);
    front.wait_for_workers(0).await;
    let (status, _) = front.post("/v1/completions", &json!({"prompt": "1"})).await;
    assert_eq!(status, 503);
    assert!(!front.get("/v1/models").await.1.contains("demo"), "no worker serves the model");
}

#[tokio::test]
async fn before_any_worker_was_reached_requests_get_503() {
    let front = Front::start(vec!["127.0.0.1:9".into()]).await;
    assert_eq!(front.get("/ready").await.0, 503);
    assert_eq!(front.post("/v1/completions", &json!({"prompt": "1"})).await.0, 503);
}

#[tokio::test]
async fn a_worker_with_another_tokenizer_is_refused() {
    let first = FakeWorker::start(Script::says("4")).await;
    let second = FakeWorker::start_with(Script::says("4"), false).await;
    let front = Front::start(vec![first.address.clone(), second.address.clone()]).await;
    front.wait_for_workers(1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    front.wait_for_workers(1).await;
}

#[tokio::test]
async fn a_worker_that_turned_to_another_model_does_not_get_requests_for_the_old_one() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = Front::start_with(vec![worker.address.clone()], |config| {
        config.heartbeat_interval = Duration::from_secs(50);
        config.heartbeat_timeout = Duration::from_secs(60);
    })
    .await;
    front.wait_for_workers(1).await;
    assert_eq!(front.post("/v1/completions", &json!({"prompt": "1"})).await.0, 200);
    worker.turn_to("demo", "b");
    assert_eq!(front.post("/v1/completions", &json!({"prompt": "1"})).await.0, 503);
}

#[tokio::test]
async fn a_worker_with_another_model_is_introduced_anew() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = Front::ready(&[&worker]).await;
    let answers = || async { front.post("/v1/completions", &json!({"prompt": "1"})).await.0 == 200 };
    assert!(answers().await);
    worker.turn_to("demo", "b");
    eventually(answers).await;
    assert_eq!(worker.requests().pop().unwrap().fingerprint, "b");
    worker.turn_to("other", "b");
    eventually(|| async { front.get("/v1/models").await.1.contains("other") }).await;
    assert!(!front.get("/v1/models").await.1.contains("demo"), "no worker serves it any more");
    assert!(answers().await, "the only model served needs no name");
    assert_eq!(front.get("/v1/models/demo").await.0, 503);
}

/// A worker that introduces itself with this fingerprint once it is healthy.
async fn unhealthy(fingerprint: &str) -> FakeWorker {
    let worker = FakeWorker::start(Script::says("4")).await;
    worker.turn_to("demo", fingerprint);
    worker.seen.healthy.store(false, Ordering::SeqCst);
    worker
}

#[tokio::test]
async fn a_worker_that_differs_cannot_take_the_name_while_the_right_ones_are_away() {
    let right = FakeWorker::start(Script::says("4")).await;
    let wrong = unhealthy("b").await;
    let front = Front::start(vec![wrong.address.clone(), right.address.clone()]).await;
    front.wait_for_workers(1).await;
    right.seen.healthy.store(false, Ordering::SeqCst);
    front.wait_for_workers(0).await;
    wrong.seen.healthy.store(true, Ordering::SeqCst);
    let reason = "its model 'demo' has fingerprint b, that of the other workers a";
    eventually(|| async { front.get("/ready").await.1.contains(reason) }).await;
    assert_eq!(front.post("/v1/completions", &json!({"prompt": "1"})).await.0, 503);
    right.seen.healthy.store(true, Ordering::SeqCst);
    front.wait_for_workers(1).await;
    assert_eq!(front.post("/v1/completions", &json!({"prompt": "1"})).await.0, 200);
    assert!(front.get("/v1/models").await.1.contains(r#""fingerprint":"a""#));
    assert_eq!((wrong.requests().len(), right.requests().len()), (0, 1));
}

#[tokio::test]
async fn a_name_changes_its_model_once_every_worker_has_introduced_another() {
    let workers = [FakeWorker::start(Script::says("4")).await, FakeWorker::start(Script::says("4")).await];
    let front = Front::ready(&[&workers[0], &workers[1]]).await;
    workers[0].turn_to("demo", "b");
    front.wait_for_workers(1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(front.get("/v1/models").await.1.contains(r#""fingerprint":"a""#));
    workers[1].turn_to("demo", "b");
    front.wait_for_workers(2).await;
    assert!(front.get("/v1/models").await.1.contains(r#""fingerprint":"b""#));
}

#[tokio::test]
async fn where_several_models_are_served_a_request_must_name_one() {
    let workers = [FakeWorker::start(Script::says("4")).await, FakeWorker::start(Script::says("4")).await];
    workers[1].turn_to("other", "b");
    let front = Front::ready(&[&workers[0], &workers[1]]).await;
    let (status, answer) = front.post("/v1/completions", &json!({"prompt": "1"})).await;
    assert_eq!((status, answer["error"]["param"].as_str()), (400, Some("model")));
    let message = "model: it is required where several models are served: use one of demo, other";
    assert_eq!(answer["error"]["message"], message);
}

#[tokio::test]
async fn why_a_worker_is_not_ready_is_told() {
    let peer = FakeWorker::start(Script::says("4")).await;
    let front = Front::ready(&[&peer]).await;
    let gone = FakeWorker::start(Script::says("4")).await.address.clone();
    let others = [gone, front.http.clone(), front.grpc.clone()];
    let second = Front::start(others.to_vec()).await;
    for reason in ["refused", "it does not speak windlass.v1.Worker"] {
        eventually(|| async { second.get("/ready").await.1.contains(reason) }).await;
    }
    let told = |page: String| page.matches("it does not speak windlass.v1.Worker").count();
    eventually(|| async { told(second.get("/ready").await.1) == 2 }).await;
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_ends_the_workers_stream() {
    let worker = FakeWorker::start(slow(&"4".repeat(200))).await;
    let front = Front::ready(&[&worker]).await;
    let response = front.send("/v1/completions", &json!({"prompt": "1", "stream": true, "n": 2})).await;
    let mut body = response.bytes_stream();
    assert!(body.next().await.is_some());
    assert_eq!(worker.seen.aborted.load(Ordering::SeqCst), 0);
    drop(body);
    eventually(|| async { worker.seen.aborted.load(Ordering::SeqCst) == 2 }).await;
}

#[tokio::test]
async fn a_client_that_leaves_before_a_whole_answer_ends_the_workers_stream() {
    let worker = FakeWorker::start(slow(&"4".repeat(200))).await;
    let front = Front::ready(&[&worker]).await;
    let body = json!({"prompt": "1"});
    let answer = front.send("/v1/completions", &body);
    assert!(tokio::time::timeout(Duration::from_millis(300), answer).await.is_err());
    eventually(|| async { worker.seen.aborted.load(Ordering::SeqCst) == 1 }).await;
}

#[tokio::test]
async fn a_shutdown_lets_running_streams_finish() {
    let worker = FakeWorker::start(slow("4444")).await;
    let front = Front::ready(&[&worker]).await;
    let running = front.send("/v1/completions", &json!({"prompt": "1", "stream": true})).await;
    let (stopped, text) = tokio::join!(front.stop(), running.text());
    stopped.unwrap();
    assert!(text.unwrap().ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_shutdown_ends_streams_at_the_deadline_with_an_error() {
    let worker = FakeWorker::start(slow(&"4".repeat(1000))).await;
    let deadline = Duration::from_millis(300);
    let front =
        Front::start_with(vec![worker.address.clone()], |config| config.shutdown_deadline = deadline).await;
    front.wait_for_workers(1).await;
    let running = front.send("/v1/completions", &json!({"prompt": "1", "stream": true})).await;
    let began = Instant::now();
    let (stopped, text) = tokio::join!(front.stop(), running.text());
    stopped.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3));
    assert!(text.unwrap().contains("the server is shutting down"));
}
