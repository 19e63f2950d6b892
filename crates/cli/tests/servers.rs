//! The servers as processes, on real sockets.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn windlass(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WINDLASS_")) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// A server under test; killed at the end.
struct Server {
    child: Child,
    greeting: String,
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut greeting = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut greeting).unwrap();
        Self { child, greeting }
    }

    fn address_after(&self, prefix: &str) -> &str {
        let (_, rest) = self.greeting.split_once(prefix).unwrap_or_else(|| panic!("{}", self.greeting));
        rest.split_whitespace().next().unwrap()
    }

    /// Sends a signal and returns the exit status.
    fn end(mut self, signal: &str) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status line and body of a request.
fn http(address: &str, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn wait_until_ready(address: &str) {
    let start = Instant::now();
    while !http(address, "GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").0.contains("200") {
        assert!(start.elapsed() < Duration::from_secs(30), "never ready");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn chat(url: &str, input: &[u8]) -> Output {
    let mut child = windlass(&["chat", "--url", url, "--temperature", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn serve_answers_over_http_and_ends_on_a_signal() {
    let mut command =
        windlass(&["serve", "--model", "demo", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
    for signal in ["-TERM", "-INT"] {
        let server = Server::start(&mut command);
        let address = server.address_after("coordinator listening on http://");
        wait_until_ready(address);
        let body = r#"{"prompt": "7+5-3*2=", "temperature": 0}"#;
        let length = body.len();
        let head =
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json";
        let (status, answer) = http(address, &format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}"));
        assert!(status.contains("200") && answer.contains(r#""text":"8""#), "{answer}");
        assert_eq!(server.end(signal), Some(0));
    }
}

/// Asks for an answer of 250 tokens and waits for the head of it; the rest comes when it is read.
fn begin_answer(address: &str) -> BufReader<TcpStream> {
    let body = r#"{"prompt": "1+1=", "max_tokens": 250, "ignore_eos": true, "depth": {"fixed": 64}, "stream": true}"#;
    let length = body.len();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json";
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.contains("200"), "{line}");
    while !line.starts_with("data: ") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "it ended before its first token");
    }
    reader
}

#[test]
fn a_worker_told_to_end_finishes_what_runs_or_hands_it_over_and_exits_with_0() {
    for (deadline, is_finished) in [("60", true), ("0", false)] {
        let listen = ["worker", "--model", "demo", "--listen", "127.0.0.1:0", "--threads", "1"];
        let worker = Server::start(&mut windlass(&[&listen[..], &["--drain-deadline-s", deadline]].concat()));
        let (any, workers) = ("127.0.0.1:0", worker.address_after("listening on "));
        // A machine that is busy with other tests must not make a worker silent for so long that it counts as lost.
        let patience = ["--heartbeat-timeout-ms", "20000"];
        let arguments = ["coordinator", "--http", any, "--grpc", any, "--workers", workers];
        let coordinator = Server::start(&mut windlass(&[&arguments[..], &patience].concat()));
        let address = coordinator.address_after("http://");
        wait_until_ready(address);
        let answer = begin_answer(address);
        assert_eq!(worker.end("-TERM"), Some(0));
        if is_finished {
            let lines = answer.lines().map(Result::unwrap);
            let text: String = lines.take_while(|line| !line.contains("[DONE]")).collect();
            assert!(text.contains(r#""finish_reason":"length""#), "{text}");
        }
    }
}

#[test]
fn a_simulated_worker_serves_without_weights_and_says_the_same_again() {
    let folder = tempfile::tempdir().unwrap();
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo");
    for name in ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(format!("{demo}/{name}"), folder.path().join(name)).unwrap();
    }
    let any = "127.0.0.1:0";
    let model = folder.path().to_str().unwrap();
    let simulated = ["--backend", "simulated", "--simulated-tick-us", "100", "--simulated-row-us", "0"];
    let arguments = ["serve", "--model", model, "--http", any, "--grpc", any];
    let server = Server::start(&mut windlass(&[&arguments[..], &simulated[..]].concat()));
    let address = server.address_after("http://");
    wait_until_ready(address);
    let body =
        r#"{"prompt": "1+1=", "max_tokens": 9, "seed": 3, "return_token_ids": true, "ignore_eos": true}"#;
    let length = body.len();
    let head =
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json";
    let request = format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}");
    let ids = || {
        let (status, body) = http(address, &request);
        assert!(status.contains("200"), "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        body["choices"][0]["token_ids"].as_array().unwrap().clone()
    };
    let first = ids();
    assert!(first.len() == 9 && first == ids(), "{first:?}");
    assert_eq!(server.end("-TERM"), Some(0));
}

#[test]
fn chat_answers_each_line_and_says_how_deep_it_thought() {
    let server = Server::start(&mut windlass(&[
        "serve",
        "--model",
        "demo",
        "--http",
        "127.0.0.1:0",
        "--grpc",
        "127.0.0.1:0",
    ]));
    let address = server.address_after("http://");
    wait_until_ready(address);
    let output = chat(&format!("http://{address}"), b"7+5-3*2=\n\n/reset\n4+9=\n/quit\n1+1=\n");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(output.status.success() && lines.len() == 4, "{text}");
    assert_eq!((lines[0], lines[2]), ("8", "3"));
    assert!(lines[1].starts_with("[16]") && lines[1].contains("2 tokens, mean depth"), "{text}");

    // A refused line does not end it, but shows in the exit status.
    let output = chat(address, "1\u{d7}1=\n/help\n4+9=\n".as_bytes());
    let (text, errors) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(text.starts_with("3\n") && output.status.code() == Some(1), "{text}{errors}");
    let errors: Vec<&str> = errors.lines().collect();
    assert!(errors[0].contains("'\u{d7}' is not in the model's vocabulary"), "{errors:?}");
    assert_eq!(errors[1..], ["error: '/help' is no command: use /reset or /quit", "error: lines refused: 2"]);

    let output = chat(address, b"4+9=\n\xFF\n");
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(message, "error: standard input is not UTF-8: convert it first\n");
}

#[test]
fn chat_says_when_nobody_is_there() {
    let output = chat("http://127.0.0.1:1", b"1+1=\n");
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(message.starts_with("error: cannot reach a coordinator at http://127.0.0.1:1"), "{message}");
}

#[test]
fn a_child_ends_when_its_parent_closes_its_input() {
    let arguments = ["worker", "--model", "demo", "--listen", "127.0.0.1:0", "--exit-with-stdin"];
    let mut worker = Server::start(&mut windlass(&arguments));
    assert!(worker.greeting.starts_with("worker listening on 127.0.0.1:"), "{}", worker.greeting);
    drop(worker.child.stdin.take());
    assert!(worker.child.wait().unwrap().success());
}

#[test]
fn the_file_gives_way_to_the_environment_and_that_to_flags() {
    let file = std::env::temp_dir().join(format!("windlass-{}.toml", std::process::id()));
    std::fs::write(&file, "[worker]\nmodel = 'demo'\nlisten = 'nowhere'\nthreads = 1\n").unwrap();
    let path = file.to_str().unwrap();
    let refused = windlass(&["worker", "--config", path]).output().unwrap();
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.starts_with("error: listen is 'nowhere': use HOST:PORT"), "{message}");

    let mut command = windlass(&["worker", "--config", path]);
    let worker = Server::start(command.env("WINDLASS_LISTEN", "127.0.0.1:0"));
    assert!(worker.greeting.starts_with("worker listening on 127.0.0.1:"), "{}", worker.greeting);
    let mut command = windlass(&["worker", "--config", path, "--listen", "127.0.0.1:0"]);
    let worker = Server::start(command.env("WINDLASS_LISTEN", "elsewhere"));
    assert!(worker.greeting.starts_with("worker listening on 127.0.0.1:"), "{}", worker.greeting);

    std::fs::write(&file, "[worker]\nlanes = 3\n").unwrap();
    let refused = windlass(&["worker", "--config", path]).output().unwrap();
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(
        refused.status.code() == Some(1) && message.contains("unknown field 'lanes': use one of listen, "),
        "{message}"
    );
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn servers_refuse_a_broken_tokenizer_at_their_start() {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo");
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "generation_config.json", "tokenizer_config.json", "model.safetensors"] {
        std::fs::copy(format!("{demo}/{name}"), folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    for command in ["serve", "worker"] {
        let output = windlass(&[command, "--model", folder.path().to_str().unwrap()]).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(message.starts_with("error: tokenizer.json: "), "{message}");
    }
}

#[test]
fn serve_refuses_workers_of_others() {
    let output = windlass(&["serve", "--model", "demo"]).env("WINDLASS_WORKERS", "a:1").output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1) && message.contains("workers is set, but serve runs"),
        "{message}"
    );
}

#[test]
fn serve_refuses_a_registry() {
    for (name, value, field) in [
        ("WINDLASS_REGISTRY", "etcd", "registry"),
        ("WINDLASS_ETCD_ENDPOINTS", "http://e:1", "etcd_endpoints"),
        ("WINDLASS_CLUSTER", "x", "cluster"),
    ] {
        let output = windlass(&["serve", "--model", "demo"]).env(name, value).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        let is_named = message.starts_with(&format!("error: {field} is "));
        assert!(is_named && message.contains("but serve is a cluster of its own"), "{message}");
    }
    let help = String::from_utf8(windlass(&["serve", "--help"]).output().unwrap().stdout).unwrap();
    assert!(
        !help.contains("--etcd-") && !help.contains("--registry") && help.contains("--jobs-dir"),
        "{help}"
    );
}

#[test]
fn a_value_that_is_refused_is_traced_to_the_environment() {
    let refused = windlass(&["worker"]).env("WINDLASS_MAX_LANES", "many").output().unwrap();
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(
        message.contains("'many' for '--max-lanes <N>'") && message.contains("value of WINDLASS_MAX_LANES"),
        "{message}"
    );
    let given = windlass(&["worker", "--max-lanes", "many"]).output().unwrap();
    assert!(!String::from_utf8(given.stderr).unwrap().contains("environment"));
}

#[test]
fn servers_refuse_a_misspelt_environment_variable() {
    for command in ["serve", "worker", "coordinator"] {
        let output = windlass(&[command]).env("WINDLASS_MODLE", "demo").output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        let expected =
            "error: the environment variable WINDLASS_MODLE is not known: did you mean WINDLASS_MODEL";
        assert!(output.status.code() == Some(1) && message.starts_with(expected), "{message}");
    }
    let output =
        windlass(&["generate", "--model", "demo", "--prompt", "1+1="]).env("WINDLASS_MODLE", "x").output();
    assert!(output.unwrap().status.success(), "only servers mind");
}

/// Accuracy as measured when the model was trained: arithmetic all right once there are enough iterations.
#[test]
fn the_demo_solves_what_the_model_is_known_to_solve() {
    let output = windlass(&["demo", "--json", "--puzzles", "78", "--seed", "3"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["puzzles"], &report["full_depth"]), (&Value::from(78), &Value::from(16)));
    let accuracy = |policy: usize, kind: &str, size: u64| {
        let sizes = report["policies"][policy]["sizes"].as_array().unwrap();
        let found = sizes.iter().find(|entry| entry["kind"] == kind && entry["size"] == size).unwrap();
        found["accuracy"].as_f64().unwrap()
    };
    for size in 1..=10 {
        assert_eq!(accuracy(0, "arithmetic", size), 1.0, "adaptive, {size} operations");
        assert_eq!(accuracy(3, "arithmetic", size), 1.0, "full, {size} operations");
    }
    assert_eq!((accuracy(1, "arithmetic", 1), accuracy(2, "arithmetic", 2)), (0.0, 1.0));
    assert_eq!((accuracy(2, "chain", 1), accuracy(2, "chain", 8)), (1.0, 0.0));
    let depth = |policy: usize| report["policies"][policy]["mean_depth"].as_f64().unwrap();
    assert_eq!((depth(1), depth(2), depth(3)), (1.0, 4.0, 16.0));
    assert!(depth(0) > 4.0 && depth(0) < 12.0, "{}", depth(0));
}
