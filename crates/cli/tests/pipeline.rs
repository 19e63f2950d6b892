//! `windlass bench pipeline`, and `--stages` elsewhere, on shapes so small that times mean nothing: what they do, and what they say.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Command, Output};

use serde_json::Value;

const SHAPE: &str = "d=32,heads=2,ff=48,layers=1+3+1,vocabulary=64,context=64";

fn windlass(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WINDLASS_")) {
        command.env_remove(name);
    }
    command.args(arguments).output().unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = windlass(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn pipeline(more: &[&str]) -> Vec<String> {
    let small = ["bench", "pipeline", "--shape", SHAPE, "--lanes", "6", "--tokens", "3", "--depth", "4"];
    [&small, more].concat().into_iter().map(str::to_owned).collect()
}

#[test]
fn rings_are_measured_beside_one_stage_and_larger_ones_simulated() {
    let arguments = pipeline(&["--rounds", "2", "--stages", "1,2,3", "--simulate", "2,8", "--json"]);
    let report: Value =
        serde_json::from_str(&stdout(&arguments.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
    let measured = report["measured"].as_array().unwrap();
    let cuts: Vec<usize> = measured.iter().map(|ring| ring["cut"].as_array().unwrap().len()).collect();
    assert_eq!(cuts, [1, 2, 3]);
    for ring in measured {
        let layers: u64 = ring["cut"].as_array().unwrap().iter().map(|layers| layers.as_u64().unwrap()).sum();
        let rate = |at: &Value| at["tokens_per_second"].as_f64().unwrap();
        let over_first = ring["over_first"].as_f64().unwrap();
        assert!((over_first - rate(ring) / rate(&measured[0])).abs() < 1e-9);
        let separate = ring["separate_tokens_per_second"].as_f64().unwrap();
        assert!(separate > 0.0 && (separate == rate(ring)) == (ring["stages"] == 1), "{ring}");
        assert_eq!((layers, ring["rounds"].as_array().unwrap().len()), (3, 2));
        let [bubbles, balance] = ["bubbles", "balance"].map(|share| ring[share].as_f64().unwrap());
        assert!((0.0..1.0).contains(&bubbles) && balance > 0.0 && balance <= 1.0, "{ring}");
    }
    let simulated = report["simulated"].as_array().unwrap();
    let core_layers: Vec<_> = simulated.iter().map(|ring| ring["core_layers"].as_u64().unwrap()).collect();
    assert_eq!(core_layers, [3, 8]);
    assert!(simulated.iter().all(|ring| ring["efficiency"].as_f64().unwrap() <= 1.01));
}

#[test]
fn more_stages_than_core_layers_lanes_or_threads_are_refused_with_a_remedy() {
    let too_many = pipeline(&["--stages", "1,4"]);
    let too_many: Vec<&str> = too_many.iter().map(String::as_str).collect();
    let generate = ["generate", "--model", "demo", "--prompt", "7+5=", "--stages", "2", "--threads", "1"];
    let few_lanes = ["bench", "pipeline", "--shape", SHAPE, "--lanes", "2", "--stages", "1,3"];
    let cases: [(&[&str], &str); 4] = [
        (&too_many, "stages is 4: use 1 to 3, the layers of the model's core"),
        (&few_lanes, "lanes is 2: use at least stages, which is 3"),
        (&generate, "threads is 1: use at least stages, which is 2"),
        (&["bench", "engine", "--stages", "0"], "stages is 0: use 1 to 2, the layers of the model's core"),
    ];
    for (arguments, expected) in cases {
        let output = windlass(arguments);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && message.contains(expected), "{arguments:?}: {message}");
    }
}

#[test]
fn a_generation_over_stages_is_the_same() {
    let generate =
        ["generate", "--model", "demo", "--prompt", "7+5-3*2=", "--json", "--threads", "2", "--stages"];
    let [one, two] = ["1", "2"].map(|stages| stdout(&[generate.as_slice(), &[stages]].concat()));
    let tokens = |text: &str| {
        text.lines().filter(|line| line.contains("\"token\"")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(!tokens(&one).is_empty());
    assert_eq!(tokens(&one), tokens(&two));
}

#[test]
fn schedulers_are_measured_over_stages() {
    let arguments = ["bench", "engine", "--shape", SHAPE, "--requests", "6", "--tokens", "5", "--lanes", "4"];
    let more = ["--rounds", "1", "--threads", "2", "--stages", "2", "--json", "--depths", "uniform:1:4"];
    let report: Value = serde_json::from_str(&stdout(&[arguments.as_slice(), &more].concat())).unwrap();
    assert_eq!(report["settings"]["stages"], 2);
    for mode in report["modes"].as_object().unwrap().values() {
        assert!(mode["tokens_per_second"].as_f64().unwrap() > 0.0);
    }
}
