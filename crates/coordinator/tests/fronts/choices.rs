//! Several choices of one request that fare differently.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};

use crate::support::{FakeWorker, Front, Otherwise, Script, eventually};

const PATIENCE: Duration = Duration::from_secs(10);

fn two() -> Value {
    json!({"prompt": "1", "n": 2, "stream": true})
}

/// A front before one worker of a model of this name, whose second request fares as told.
async fn front(model: &str, script: Script, second: Otherwise) -> (FakeWorker, Front) {
    let but = match second {
        Otherwise::Waits => |number| if number == 1 { Otherwise::Waits } else { Otherwise::No },
        Otherwise::Refused => |number| if number == 1 { Otherwise::Refused } else { Otherwise::No },
        Otherwise::Lost => |number| if number == 1 { Otherwise::Lost } else { Otherwise::No },
        Otherwise::No | Otherwise::Mute | Otherwise::Panics => |_| Otherwise::No,
    };
    let worker = FakeWorker::start(Script { but, ..script }).await;
    worker.turn_to(model, "a");
    let address = vec![worker.address.clone()];
    let front = Front::start_with(address, |config| config.max_migrations = 0).await;
    front.wait_for_workers(1).await;
    (worker, front)
}

fn aborts(model: &str, count: usize) -> String {
    format!("windlass_request_success_total{{model=\"{model}\",finished_reason=\"abort\"}} {count}\n")
}

#[tokio::test]
async fn a_choice_that_runs_is_streamed_while_another_waits() {
    let (worker, front) = front("patient", Script::says("4"), Otherwise::Waits).await;
    let sent = tokio::time::timeout(PATIENCE, front.send("/v1/completions", &two())).await;
    let mut body = sent.unwrap().bytes_stream();
    let mut text = String::new();
    while !text.contains(r#""finish_reason":"length""#) {
        let chunk = tokio::time::timeout(PATIENCE, body.next()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    drop(body);
    eventually(|| async { worker.seen.aborted.load(Ordering::SeqCst) == 1 }).await;
    eventually(|| async { front.get("/metrics").await.1.contains(&aborts("patient", 1)) }).await;
}

#[tokio::test]
async fn an_error_after_the_first_choice_began_is_an_event_of_the_stream() {
    let script = Script { pause: Duration::from_millis(100), ..Script::says("444444") };
    let (_worker, front) = front("half", script, Otherwise::Refused).await;
    let events = front.events("/v1/completions", &two()).await;
    let [first, .., error, done] = events.as_slice() else { panic!("{events:?}") };
    assert!(first.contains(r#""text":"4""#) && done == "[DONE]", "{events:?}");
    assert_eq!(serde_json::from_str::<Value>(error).unwrap()["error"]["code"], "busy");
}

#[tokio::test]
async fn an_error_before_any_choice_began_is_the_status() {
    let script = Script { but: |_| Otherwise::Refused, ..Script::says("4") };
    let worker = FakeWorker::start(script).await;
    let front = Front::ready(&[&worker]).await;
    assert_eq!(front.post("/v1/completions", &two()).await.0, 429);
}

#[tokio::test]
async fn choices_that_end_because_another_was_lost_count_as_failed() {
    let failures = |page: &str| {
        let line = page.lines().find(|line| line.contains("failure_total{code=\"worker_lost\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    for (model, stream) in [("siblings-streamed", true), ("siblings-whole", false)] {
        let script = Script { pause: Duration::from_millis(50), ..Script::says(&"4".repeat(200)) };
        let (worker, front) = front(model, script, Otherwise::Lost).await;
        let before = failures(&front.get("/metrics").await.1);
        let body = json!({"prompt": "1", "n": 2, "stream": stream});
        let text = front.send("/v1/completions", &body).await.text().await.unwrap();
        assert!(text.contains("worker_lost"), "{text}");
        eventually(|| async { worker.seen.aborted.load(Ordering::SeqCst) == 1 }).await;
        let page = front.get("/metrics").await.1;
        assert!(failures(&page) >= before + 2, "{page}");
        let of_model = format!("windlass_request_success_total{{model=\"{model}\",finished_reason=");
        let mut successes = page.lines().filter(|line| line.starts_with(&of_model));
        assert!(successes.all(|line| line.ends_with(" 0")), "{page}");
    }
}
