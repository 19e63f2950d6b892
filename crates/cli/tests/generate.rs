//! The program against numbers recorded from the reference implementation, and on the demo model's own task.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use windlass_model::goldens::{GoldenCase, Goldens, LOGITS_TOLERANCE, close};
use windlass_model::{AdaptiveDepth, DepthPolicy, KvPolicy, OracleToken};

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/huginn-tiny");

fn windlass(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WINDLASS_")) {
        command.env_remove(name);
    }
    command.args(arguments).output().unwrap()
}

fn stdout_of(arguments: &[&str]) -> String {
    let output = windlass(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn lines_of(arguments: &[&str]) -> Vec<Value> {
    stdout_of(arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Exit status and message of a run that must fail.
fn failure(arguments: &[&str]) -> (i32, String) {
    let output = windlass(arguments);
    assert!(output.stdout.is_empty(), "{arguments:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap_or(f64::NAN)).collect()
}

/// Runs a recorded case through the program.
fn run(case: &GoldenCase) -> Vec<OracleToken> {
    let ids = case.prompt.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let depth = match case.depth {
        DepthPolicy::Fixed(depth) => format!("fixed:{depth}"),
        DepthPolicy::Adaptive(AdaptiveDepth { criterion, threshold, max, .. }) => {
            format!("adaptive:{criterion}:{threshold}:{max}")
        }
    };
    let kv = match case.kv {
        KvPolicy::Full => "full".to_owned(),
        KvPolicy::Ring(slots) => format!("ring:{slots}"),
        KvPolicy::Anchor(slots) => format!("anchor:{slots}"),
    };
    let max_tokens = case.tokens.len().to_string();
    let lines = lines_of(&[
        "generate",
        "--model",
        GOLDENS,
        "--token-ids",
        &ids,
        "--depth",
        &depth,
        "--kv",
        &kv,
        "--max-tokens",
        &max_tokens,
        "--init-scale",
        "0",
        "--threads",
        "1",
        "--json",
        "--logits",
        "--exit-values",
    ]);
    lines.iter().map(token).collect()
}

fn token(line: &Value) -> OracleToken {
    let logits: Vec<f32> = numbers(&line["logits"]).into_iter().map(|logit| logit as f32).collect();
    let id = line["token"].as_u64().unwrap() as u32;
    assert_eq!(line["text"], "", "a folder without a tokenizer has no text");
    let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
    let logprob = f64::from(logits[id as usize]) - sum.ln();
    assert!((line["logprob"].as_f64().unwrap() - logprob).abs() < 1e-4);
    OracleToken {
        token: id,
        depth: line["depth"].as_u64().unwrap() as u32,
        exit_values: numbers(&line["exit_values"]),
        logits,
    }
}

#[test]
fn recorded_generations_come_out_again() {
    let goldens = Goldens::open(Path::new(GOLDENS));
    let (mut agreed, mut all) = (0, 0);
    for case in goldens.cases.iter().step_by(7) {
        let produced = run(case);
        let same = case.compare(&produced).unwrap();
        if let (Some(name), true) = (&case.logits, same == case.tokens.len()) {
            let logits: Vec<f32> = produced.iter().flat_map(|token| token.logits.iter().copied()).collect();
            close(&logits, &goldens.tensor(name), LOGITS_TOLERANCE).unwrap();
        }
        agreed += same;
        all += case.tokens.len();
    }
    assert!(agreed * 100 >= all * 95, "only {agreed} of {all} tokens could be compared");
}

#[test]
fn the_demo_model_does_arithmetic() {
    for (prompt, answer) in [("7+5-3*2=", "8"), ("4+9=", "3"), ("8-9-9-9+5*3=", "8"), ("ab bc;a=", "c")] {
        let text = stdout_of(&["generate", "--model", "demo", "--prompt", prompt, "--threads", "1"]);
        assert_eq!(text, format!("{answer}\n"), "{prompt}");
    }
}

#[test]
fn a_stop_token_has_a_line_of_its_own_and_no_text() {
    let prompt = ["generate", "--model", "demo", "--prompt", "7+5-3*2=", "--effort", "low", "--json"];
    let lines = lines_of(&prompt);
    let texts: Vec<_> = lines.iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["8", ""]);
    assert_eq!((&lines[0]["depth"], &lines[1]["token"]), (&Value::from(8), &Value::from(2)));
    let mut keys: Vec<_> = lines[1].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["depth", "logprob", "text", "token"]);
    let ids = lines_of(&[
        "generate",
        "--model",
        "demo",
        "--token-ids",
        "1,12,15,10,16,8,17,7,19",
        "--effort",
        "low",
        "--json",
    ]);
    assert_eq!(ids, lines, "text gets the begin-of-text token, ids are taken as they are");
}

#[test]
fn top_logprobs_are_there_when_asked_for() {
    let lines = lines_of(&["generate", "--model", "demo", "--prompt", "1+1=", "--json", "--logprobs", "3"]);
    let top = lines[0]["top_logprobs"].as_array().unwrap();
    assert_eq!(
        (top.len(), &top[0]["token"], &top[0]["logprob"]),
        (3, &lines[0]["token"], &lines[0]["logprob"])
    );
}

#[test]
fn the_same_seed_draws_the_same_tokens() {
    let draw = |seed: &str| {
        let arguments =
            ["generate", "--model", GOLDENS, "--token-ids", "7", "--temperature", "2", "--seed", seed];
        lines_of(&[&arguments[..], &["--max-tokens", "12", "--depth", "fixed:2", "--json"]].concat())
    };
    assert_eq!(draw("1"), draw("1"));
    assert_ne!(draw("1"), draw("2"));
}

#[test]
fn without_a_tokenizer_the_ids_are_written() {
    let arguments =
        ["generate", "--model", GOLDENS, "--token-ids", "7", "--depth", "fixed:2", "--max-tokens", "5"];
    let lines = lines_of(&[&arguments[..], &["--json"]].concat());
    let ids: Vec<_> = lines.iter().map(|line| line["token"].to_string()).collect();
    assert!(ids.len() > 1);
    assert_eq!(stdout_of(&arguments), ids.join(",") + "\n");
}

#[test]
fn what_only_json_can_show_implies_it() {
    for (flag, field) in
        [("--logits", "logits"), ("--exit-values", "exit_values"), ("--logprobs=2", "top_logprobs")]
    {
        let lines = lines_of(&["generate", "--model", "demo", "--prompt", "1+1=", flag]);
        assert!(lines[0][field].is_array() && lines[0]["logprob"].is_number(), "{flag}: {}", lines[0]);
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_windlass"))
        .args(["generate", "--model", "demo", "--prompt", "7+5-3*2=", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
}

#[test]
fn failures_say_what_is_wrong_and_what_to_do() {
    let demo =
        |more: &[&str]| failure(&[&["generate", "--model", "demo", "--prompt", "1+1="], more].concat());
    let cases = [
        (demo(&["--depth", "fixed:65"]), 1, "error: depth: 65 is out of range: use 1 to 64"),
        (demo(&["--depth", "adaptive:kl:-1"]), 1, "error: depth.adaptive.threshold: -1 is out of range"),
        (
            demo(&["--effort", "most"]),
            1,
            "error: effort: the model has no 'most': use one of low, medium, high",
        ),
        (demo(&["--max-tokens", "0"]), 1, "error: max_tokens: 0 is out of range"),
        (
            demo(&["--max-tokens", "252"]),
            1,
            "error: max_tokens: 252 and a prompt of 5 tokens exceed the context of 256: use at most 251",
        ),
        (demo(&["--threads", "0"]), 1, "error: threads is 0: use 1 to"),
        (demo(&["--depth", "8"]), 2, "error: invalid value '8' for '--depth <POLICY>': use fixed:DEPTH"),
        (demo(&["--kv", "ring:0"]), 1, "error: kv: ring 0 is out of range"),
        (demo(&["--token-ids", "1"]), 2, "cannot be used with"),
        (failure(&["generate", "--model", "demo"]), 2, "required"),
        (
            failure(&["generate", "--model", "demo", "--prompt", "1\u{d7}1="]),
            1,
            "character '\u{d7}' is not in the",
        ),
        (
            failure(&["generate", "--model", GOLDENS, "--prompt", "a", "--json"]),
            1,
            "has no tokenizer.json: use --token-ids, not --prompt",
        ),
        (
            failure(&["generate", "--model", GOLDENS, "--prompt", "a"]),
            1,
            "has no tokenizer.json: use --token-ids, not --prompt",
        ),
        (failure(&["generate", "--model", "", "--prompt", "a"]), 1, "error: model is empty: name its folder"),
        (demo(&["--max-tokens", "-1"]), 2, "invalid value '-1' for '--max-tokens <N>'"),
        (demo(&["--temperature", "nan"]), 2, "invalid value 'nan' for '--temperature <T>': use a finite"),
        (
            failure(&["generate", "--model", "demo", "--token-ids", "-1,2"]),
            2,
            "invalid value '-1' for '--token-ids <IDS>'",
        ),
        (
            failure(&["generate", "--model", "demo", "--token-ids", "64"]),
            1,
            "error: prompt: token 64 is not in the vocabulary",
        ),
        (
            failure(&["generate", "--model", "/no/such", "--prompt", "a"]),
            1,
            "error: model: /no/such cannot be read",
        ),
    ];
    for ((status, message), expected_status, expected) in cases {
        assert_eq!(status, expected_status, "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn ranks_take_the_tokens_of_the_whole_model_and_more_than_heads_are_refused() {
    let generate = |tp: &str| {
        let prompt = ["--prompt", "7+5-3*2=", "--max-tokens", "8", "--depth", "fixed:6", "--json"];
        let lines = lines_of(&[&["generate", "--model", "demo", "--tp", tp][..], &prompt].concat());
        lines.iter().map(|line| line["token"].clone()).collect::<Vec<_>>()
    };
    let whole = generate("1");
    assert!(!whole.is_empty());
    assert_eq!(generate("2"), whole);
    assert_eq!(generate("3"), whole);
    let (status, message) = failure(&["generate", "--model", "demo", "--prompt", "1", "--tp", "5"]);
    assert!(status == 1 && message.contains("tp is 5: use 1 to 4"), "{message}");
}
