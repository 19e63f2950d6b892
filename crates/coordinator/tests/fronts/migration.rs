//! Workers that are lost in the middle of a generation: it goes on elsewhere, and each token comes once.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::{Value, json};
use tonic::Status;
use windlass_client::{Client, Event, GenerateRequest};

use crate::support::{FakeWorker, Front, Otherwise, Script, eventually};

const TEXT: &str = "0123456789012345678901234567890123456789";

/// Long enough to be lost in the middle.
fn slow() -> Script {
    Script { pause: Duration::from_millis(20), ..Script::says(TEXT) }
}

fn lost_once() -> Script {
    Script { but: |number| if number == 0 { Otherwise::Lost } else { Otherwise::No }, ..slow() }
}

async fn two(script: fn() -> Script) -> ([FakeWorker; 2], Front) {
    let workers = [FakeWorker::start(script()).await, FakeWorker::start(script()).await];
    let front = Front::ready(&[&workers[0], &workers[1]]).await;
    (workers, front)
}

fn body(stream: bool) -> Value {
    json!({"prompt": "1", "stream": stream, "return_token_ids": true, "return_depths": true, "seed": 3})
}

/// Text, token ids and depths of a stream without errors.
fn told(text: &str) -> (String, Vec<u64>, Vec<u64>) {
    let (mut said, mut ids, mut depths) = (String::new(), Vec::new(), Vec::new());
    let numbers = |list: &Value| -> Vec<u64> {
        list.as_array().into_iter().flatten().map(|number| number.as_u64().unwrap()).collect()
    };
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]") {
        let event: Value = serde_json::from_str(data).unwrap();
        assert!(event["error"].is_null(), "{event}");
        for choice in event["choices"].as_array().unwrap() {
            said.push_str(choice["text"].as_str().unwrap());
            ids.extend(numbers(&choice["token_ids"]));
            depths.extend(numbers(&choice["depths"]));
        }
    }
    (said, ids, depths)
}

fn undisturbed() -> (String, Vec<u64>, Vec<u64>) {
    let ids = TEXT.bytes().map(|byte| u64::from(byte - b'0') + 5).collect();
    (TEXT.to_owned(), ids, (4..4 + TEXT.len() as u64).collect())
}

/// The one of two workers that has the only request.
fn busy(workers: &[FakeWorker; 2]) -> usize {
    workers.iter().position(|worker| !worker.requests().is_empty()).unwrap()
}

/// Streams, and when the answer has begun does something to its worker; what the client was told.
async fn disturbed(
    workers: &mut [FakeWorker; 2],
    front: &Front,
    disturb: impl AsyncFnOnce(&mut FakeWorker),
) -> String {
    let response = front.send("/v1/completions", &body(true)).await;
    let mut chunks = response.bytes_stream();
    let mut text = String::new();
    while text.matches("data: ").count() < 3 {
        text.push_str(std::str::from_utf8(&chunks.next().await.unwrap().unwrap()).unwrap());
    }
    let hit = busy(workers);
    disturb(&mut workers[hit]).await;
    while let Some(chunk) = chunks.next().await {
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
    text
}

#[tokio::test]
async fn a_stream_goes_on_at_another_worker_after_its_connection_broke() {
    let (mut workers, front) = two(slow).await;
    let replaced = FakeWorker::start(slow()).await;
    let text =
        disturbed(&mut workers, &front, async |worker| drop(std::mem::replace(worker, replaced))).await;
    assert_eq!(told(&text), undisturbed());
    let resumed: Vec<_> = workers.iter().flat_map(FakeWorker::requests).collect();
    let [resumed] = resumed.as_slice() else { panic!("{resumed:?}") };
    let emitted = resumed.emitted.len();
    assert!((2..TEXT.len()).contains(&emitted), "it goes on behind {emitted} tokens");
    assert_eq!(resumed.parameters.as_ref().unwrap().sampling.as_ref().unwrap().seed, Some(3));
    let page = front.get("/metrics").await.1;
    assert!(!page.contains("windlass_migrations_total{reason=\"connection\"} 0\n"), "{page}");
    assert!(!page.contains("windlass_worker_losses_total 0\n"), "{page}");
}

#[tokio::test]
async fn a_stream_that_is_handed_over_goes_on_at_another_worker() {
    let (mut workers, front) = two(slow).await;
    let text = disturbed(&mut workers, &front, async |worker| {
        worker.seen.draining.store(true, Ordering::SeqCst);
        worker.seen.handing_over.store(true, Ordering::SeqCst);
    })
    .await;
    assert_eq!(told(&text), undisturbed());
    assert_eq!(workers.each_ref().map(|worker| worker.requests().len()), [1, 1]);
}

#[tokio::test]
async fn a_stream_of_a_frozen_worker_goes_on_elsewhere_within_two_seconds() {
    let (mut workers, front) = two(slow).await;
    let mut frozen_at = Instant::now();
    let text = disturbed(&mut workers, &front, async |worker| {
        worker.freeze();
        frozen_at = Instant::now();
    })
    .await;
    assert_eq!(told(&text), undisturbed());
    // The rest of the answer takes less than one.
    assert!(frozen_at.elapsed() < Duration::from_secs(3), "{:?}", frozen_at.elapsed());
    front.wait_for_workers(1).await;
    let frozen = workers.iter().position(|worker| worker.seen.frozen.load(Ordering::SeqCst)).unwrap();
    workers[frozen].thaw();
    front.wait_for_workers(2).await;
    eventually(|| async { workers[frozen].seen.aborted.load(Ordering::SeqCst) == 1 }).await;
}

#[tokio::test]
async fn a_request_whose_worker_freezes_before_the_first_token_is_not_lost() {
    let (workers, front) = two(slow).await;
    workers[0].freeze();
    workers[1].freeze();
    let request = body(false);
    let answer = front.post("/v1/completions", &request);
    let first = async {
        eventually(|| async { workers.iter().any(|worker| !worker.requests().is_empty()) }).await;
        workers[1 - busy(&workers)].thaw();
    };
    let ((status, answer), ()) = tokio::join!(answer, first);
    assert_eq!((status, answer["choices"][0]["text"].as_str()), (200, Some(TEXT)));
}

#[tokio::test]
async fn a_stream_that_a_smaller_worker_cannot_hold_goes_on_at_one_that_can() {
    let large = FakeWorker::start(slow()).await;
    let refusal = Some(Status::failed_precondition("too large"));
    let small = FakeWorker::start(Script { refusal, ..Script::says("") }).await;
    let front = Front::ready(&[&large, &small]).await;
    let drain = |drains| {
        large.seen.draining.store(drains, Ordering::SeqCst);
        large.seen.handing_over.store(drains, Ordering::SeqCst);
    };
    let request = body(false);
    let hand_over = async {
        eventually(|| async { !large.requests().is_empty() }).await;
        drain(true);
        eventually(|| async { small.requests().len() > 4 }).await;
        drain(false);
    };
    let ((status, answer), ()) = tokio::join!(front.post("/v1/completions", &request), hand_over);
    assert_eq!((status, answer["choices"][0]["text"].as_str()), (200, Some(TEXT)), "{answer}");
}

#[tokio::test]
async fn a_whole_answer_and_its_usage_are_as_if_nothing_had_happened() {
    let worker = FakeWorker::start(lost_once()).await;
    let front = Front::ready(&[&worker]).await;
    let (status, answer) = front.post("/v1/completions", &body(false)).await;
    assert_eq!(status, 200, "{answer}");
    let (text, ids, depths) = undisturbed();
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["text"], &choice["token_ids"], &choice["depths"]),
        (&json!(text), &json!(ids), &json!(depths))
    );
    assert_eq!(answer["usage"]["completion_tokens"], TEXT.len());
    assert_eq!(answer["usage"]["core_iterations"]["completion"], depths.iter().sum::<u64>());
    assert_eq!(worker.requests().len(), 2, "the only worker may go on itself");
    assert_eq!(worker.requests()[1].emitted.len(), 1);
}

#[tokio::test]
async fn grpc_clients_see_every_token_once_too() {
    let worker = FakeWorker::start(lost_once()).await;
    let front = Front::ready(&[&worker]).await;
    let client = Client::connect(&front.grpc).await.unwrap();
    let mut events = Box::pin(client.generate(GenerateRequest::text("1")).await.unwrap());
    let (mut text, mut depths) = (String::new(), Vec::new());
    let mut finished = false;
    while let Some(event) = events.next().await {
        match event.unwrap() {
            Event::Delta(delta) => {
                text.push_str(&delta.text);
                depths.extend(delta.tokens.iter().map(|token| u64::from(token.depth)));
            }
            Event::Finish(finish) => {
                assert_eq!(finish.usage.completion_tokens as usize, TEXT.len());
                finished = true;
            }
        }
    }
    assert!(finished);
    assert_eq!((text, depths), (undisturbed().0, undisturbed().2));
}

#[tokio::test]
async fn a_request_that_breaks_three_workers_in_a_row_is_given_up() {
    let script = || Script { but: |_| Otherwise::Panics, ..slow() };
    let mut workers = Vec::new();
    for _ in 0..5 {
        workers.push(FakeWorker::start(script()).await);
    }
    let front = Front::ready(&workers.iter().collect::<Vec<_>>()).await;
    let (status, answer) = front.post("/v1/completions", &body(false)).await;
    assert_eq!(status, 500, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("3 workers in a row failed"), "{answer}");
    assert_eq!(workers.iter().map(|worker| worker.requests().len()).sum::<usize>(), 3);
}

#[tokio::test]
async fn a_request_that_gets_on_is_carried_on_past_many_engines_that_fail() {
    let worker = FakeWorker::start(Script {
        but: |number| if number < 5 { Otherwise::Lost } else { Otherwise::No },
        ..slow()
    })
    .await;
    let front = Front::ready(&[&worker]).await;
    assert_eq!(front.post("/v1/completions", &body(false)).await.1["choices"][0]["text"], TEXT);
    assert_eq!(
        worker.requests().iter().map(|request| request.emitted.len()).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 5]
    );
}

#[tokio::test]
async fn migrations_and_patience_are_bounded() {
    let worker = FakeWorker::start(Script { but: |_| Otherwise::Lost, ..slow() }).await;
    let front = Front::start_with(vec![worker.address.clone()], |config| config.max_migrations = 2).await;
    front.wait_for_workers(1).await;
    let (status, answer) = front.post("/v1/completions", &body(false)).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (503, Some("worker_lost")));
    assert_eq!(worker.requests().len(), 3);

    let worker = FakeWorker::start(slow()).await;
    let patience = Duration::from_millis(300);
    let front =
        Front::start_with(vec![worker.address.clone()], |config| config.migration_patience = patience).await;
    front.wait_for_workers(1).await;
    let running = front.send("/v1/completions", &body(true)).await;
    drop(worker);
    let text = running.text().await.unwrap();
    assert!(text.contains("none took over within 300ms") && text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[tokio::test]
async fn time_runs_on_while_a_request_looks_for_a_worker_and_the_rest_is_passed_on() {
    let worker = FakeWorker::start(lost_once()).await;
    let front = Front::ready(&[&worker]).await;
    let mut timed = body(false);
    timed["timeout_ms"] = json!(20_000);
    assert_eq!(front.post("/v1/completions", &timed).await.0, 200);
    let allowed: Vec<_> = worker
        .requests()
        .iter()
        .map(|request| request.parameters.as_ref().unwrap().timeout_ms.unwrap())
        .collect();
    assert!(allowed[0] <= 20_000 && allowed[1] < allowed[0], "{allowed:?}");

    let worker = FakeWorker::start(slow()).await;
    let front = Front::ready(&[&worker]).await;
    let mut timed = body(true);
    timed["timeout_ms"] = json!(700);
    let running = front.send("/v1/completions", &timed).await;
    drop(worker);
    let text = running.text().await.unwrap();
    assert!(text.contains(r#""finish_reason":"timeout""#), "the answer ends with what it has: {text}");
}

#[tokio::test]
async fn what_only_lacks_its_finish_needs_no_other_worker() {
    let script = || Script { lost: true, ..Script::says("42") };
    let worker = FakeWorker::start(script()).await;
    let front = Front::ready(&[&worker]).await;
    let (status, answer) = front.post("/v1/completions", &json!({"prompt": "1", "max_tokens": 2})).await;
    assert_eq!((status, answer["choices"][0]["finish_reason"].as_str()), (200, Some("length")), "{answer}");
    let stopping = FakeWorker::start(Script { ends_with_stop: true, ..script() }).await;
    let front = Front::ready(&[&stopping]).await;
    let (_, answer) = front.post("/v1/completions", &json!({"prompt": "1"})).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{answer}");
    assert_eq!((worker.requests().len(), stopping.requests().len()), (1, 1));
}
