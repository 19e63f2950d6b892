//! Clients that hold a connection without using it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::front;
use crate::support::{FakeWorker, Front, Script};

const PATIENCE: Duration = Duration::from_secs(10);

/// Sends the start of a request and no more; what is said until the connection is closed.
async fn stall(front: &Front, start: &str) -> String {
    let address = front.http.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(start.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("it stays open");
    answer
}

#[tokio::test]
async fn a_request_that_does_not_come_is_given_up() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = front(&worker, |config| config.read_timeout = Duration::from_millis(200)).await;
    stall(&front, "GET /live HT").await;
    stall(&front, "GET /live HTTP/1.1\r\nhost: x\r\nx-slow").await;
    let answer = stall(&front, "GET /live HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "an idle connection was answered before: {answer}");
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n";
    let answer = stall(&front, &format!("{head}{{\"prompt\"")).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
}

#[tokio::test]
async fn an_answer_may_take_longer_than_its_request() {
    let script = Script { pause: Duration::from_millis(100), ..Script::says("44444") };
    let worker = FakeWorker::start(script).await;
    let front = front(&worker, |config| config.read_timeout = Duration::from_millis(200)).await;
    let events = front.events("/v1/completions", &serde_json::json!({"prompt": "1", "stream": true})).await;
    assert_eq!(events.last().unwrap(), "[DONE]");
}
