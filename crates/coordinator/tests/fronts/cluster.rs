//! The operators' service, and what becomes of workers.

use std::time::Duration;

use futures::StreamExt;
use serde_json::json;
use tonic::Status;
use windlass_client::{Client, ClientError, WorkerState};

use crate::support::{FakeWorker, Front, Script, eventually};

async fn client(front: &Front) -> Client {
    Client::connect(&front.grpc).await.unwrap()
}

async fn state(front: &Front, worker: &FakeWorker) -> WorkerState {
    let workers = client(front).await.list_workers().await.unwrap();
    workers.into_iter().find(|known| known.id == worker.address).unwrap().state
}

#[tokio::test]
async fn a_drained_worker_takes_nothing_until_it_is_undrained() {
    let workers = [FakeWorker::start(Script::says("4")).await, FakeWorker::start(Script::says("4")).await];
    let front = Front::ready(&[&workers[0], &workers[1]]).await;
    let client = client(&front).await;
    client.drain_worker(&workers[0].address, None).await.unwrap();
    assert_eq!(state(&front, &workers[0]).await, WorkerState::Draining);
    for _ in 0..8 {
        assert_eq!(front.post("/v1/completions", &json!({"prompt": "1"})).await.0, 200);
    }
    assert_eq!((workers[0].requests().len(), workers[1].requests().len()), (0, 8));
    assert_eq!(front.get("/ready").await.0, 200);
    client.drain_worker(&workers[1].address, Some(Duration::ZERO)).await.unwrap();
    let (status, page) = front.get("/ready").await;
    assert!(status == 503 && page.contains("it drains"), "{page}");
    assert!(front.get("/metrics").await.1.contains("windlass_workers{state=\"draining\"} 2\n"));
    client.undrain_worker(&workers[0].address).await.unwrap();
    assert_eq!(front.post("/v1/completions", &json!({"prompt": "1"})).await.0, 200);
    assert_eq!(workers[0].requests().len(), 1);
}

#[tokio::test]
async fn a_worker_that_drains_by_itself_is_passed_over_and_what_runs_there_goes_on() {
    use std::sync::atomic::Ordering;
    let script = Script { pause: Duration::from_millis(20), ..Script::says(&"4".repeat(30)) };
    let worker = FakeWorker::start(script).await;
    let front = Front::ready(&[&worker]).await;
    let running = front.send("/v1/completions", &json!({"prompt": "1", "stream": true})).await;
    worker.seen.draining.store(true, Ordering::SeqCst);
    front.wait_for_workers(0).await;
    assert_eq!(front.post("/v1/completions", &json!({"prompt": "1"})).await.0, 503);
    assert!(running.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    assert_eq!(worker.requests().len(), 1);
}

#[tokio::test]
async fn a_worker_that_is_not_known_is_an_error_that_names_those_that_are() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = Front::ready(&[&worker]).await;
    let error = client(&front).await.drain_worker("nobody", None).await.unwrap_err();
    assert!(matches!(error, ClientError::NotFound { .. }));
    assert_eq!(error.to_string(), format!("there is no worker 'nobody': use one of {}", worker.address));
}

#[tokio::test]
async fn watchers_see_the_list_at_once_and_every_change() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = Front::ready(&[&worker]).await;
    let mut lists = Box::pin(client(&front).await.watch_workers().await.unwrap());
    let first = lists.next().await.unwrap().unwrap();
    assert_eq!(
        (first[0].state, first[0].model.as_str(), first[0].version.as_str()),
        (WorkerState::Ready, "demo", "0")
    );
    drop(worker);
    loop {
        let list = lists.next().await.unwrap().unwrap();
        if list[0].state == WorkerState::Unready {
            assert!(!list[0].reason.is_empty());
            break;
        }
    }
    front.stop().await.unwrap();
    while lists.next().await.is_some_and(|list| list.is_ok()) {}
}

#[tokio::test]
async fn requests_under_way_are_told_with_what_they_still_cost() {
    let script = Script { pause: Duration::from_millis(20), ..Script::says(&"4".repeat(100)) };
    let worker = FakeWorker::start(script).await;
    let front = Front::ready(&[&worker]).await;
    let running =
        front.send("/v1/completions", &json!({"prompt": "1", "stream": true, "max_tokens": 100})).await;
    let client = client(&front).await;
    let cost = || async {
        let known = client.list_workers().await.unwrap().remove(0);
        assert_eq!(known.requests, 1);
        known.predicted_core_iterations
    };
    let before = cost().await;
    assert!((1..=1600).contains(&before), "the prompt is done: {before}");
    eventually(|| async { cost().await < before }).await;
    drop(running);
    eventually(|| async { client.list_workers().await.unwrap()[0].requests == 0 }).await;
}

#[tokio::test]
async fn a_worker_that_keeps_failing_is_left_out_for_a_while() {
    let failing =
        FakeWorker::start(Script { refusal: Some(Status::internal("no")), ..Script::says("") }).await;
    let front = Front::start_with(vec![failing.address.clone()], |config| config.breaker_failures = 3).await;
    front.wait_for_workers(1).await;
    let ask = async || front.post("/v1/completions", &json!({"prompt": "1"})).await.0;
    for _ in 0..3 {
        assert_eq!(ask().await, 503);
    }
    assert_eq!(state(&front, &failing).await, WorkerState::Suspended);
    assert_eq!(front.get("/ready").await.0, 503);
    assert_eq!((ask().await, failing.requests().len()), (503, 3), "it is not asked");
    eventually(|| async {
        ask().await;
        failing.requests().len() == 4
    })
    .await;
    assert_eq!(state(&front, &failing).await, WorkerState::Suspended, "one trial failed");
}

#[tokio::test]
async fn requests_for_the_model_before_do_not_suspend_the_worker_that_refuses_them() {
    let script = Script { pause: Duration::from_millis(100), ..Script::says(&"4".repeat(10)) };
    let worker = FakeWorker::start(script).await;
    let front = Front::start_with(vec![worker.address.clone()], |config| config.breaker_failures = 2).await;
    front.wait_for_workers(1).await;
    let left_over = front.send("/v1/completions", &json!({"prompt": "1", "stream": true})).await;
    worker.turn_to("demo", "b");
    let refused = || worker.requests().iter().filter(|request| !request.emitted.is_empty()).count();
    eventually(|| async { refused() >= 3 }).await;
    assert_eq!(state(&front, &worker).await, WorkerState::Ready);
    assert_eq!(front.post("/v1/completions", &json!({"prompt": "1"})).await.0, 200);
    drop(left_over);
}

#[tokio::test]
async fn a_worker_that_comes_late_has_work_within_a_second() {
    // A port that nobody listens on until the worker does.
    let early = FakeWorker::start(Script::says("4")).await;
    let late = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = late.local_addr().unwrap().to_string();
    drop(late);
    let front = Front::start(vec![early.address.clone(), address.clone()]).await;
    front.wait_for_workers(1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let late = FakeWorker::start_at(&address, Script::says("4")).await;
    let began = std::time::Instant::now();
    while late.requests().is_empty() {
        assert_eq!(front.post("/v1/completions", &json!({"prompt": "1"})).await.0, 200);
        assert!(began.elapsed() < Duration::from_secs(5), "no work after {:?}", began.elapsed());
    }
}
