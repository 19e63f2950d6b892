//! `windlass bench` on shapes and clusters so small that times mean nothing: what it does, and what it says.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

const SHAPE: &str = "d=32,heads=2,ff=48,layers=1+2+1,vocabulary=64,context=64";
/// Small enough for a test.
const SMALL: [&str; 10] =
    ["--shape", SHAPE, "--requests", "6", "--tokens", "5", "--lanes", "3", "--rounds", "2"];

fn bench(arguments: &[&str]) -> Output {
    windlass(&["bench", "engine"]).args(arguments).args(["--threads", "1"]).output().unwrap()
}

fn windlass(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WINDLASS_")) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// What a small run writes.
fn small(more: &[&str]) -> String {
    let output = bench(&[&SMALL, more].concat());
    assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(more: &[&str]) -> Value {
    serde_json::from_str(&small(&[more, &["--json"]].concat())).unwrap()
}

#[test]
fn one_distribution_and_lane_count_have_their_modes_at_the_top() {
    let report = json(&["--depths", "uniform:1:6"]);
    let modes = report["modes"].as_object().unwrap();
    assert_eq!(report["measurements"][0]["modes"], report["modes"]);
    for (name, mode) in modes {
        assert!(mode["tokens_per_second"].as_f64().unwrap() > 0.0, "{name}");
        let share = mode["share_of_theoretical_gain"].as_f64().unwrap();
        // The best rates are not those of drafts, whose launches have more rows.
        assert!(share > 0.0 && (share < 1.5 || name == "drafts"), "{name}: {share}");
        assert!(mode["share_at_own_rates"].as_f64().unwrap() > 0.0, "{name}");
        let phases =
            ["prelude", "core", "coda", "sampling", "rest"].map(|phase| &mode["phases"][phase]["share"]);
        let sum: f64 = phases.iter().map(|share| share.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{name}: {sum}");
        assert_eq!(mode["rounds"].as_array().unwrap().len(), 2);
    }
    let rate = |mode: &str| modes[mode]["tokens_per_second"].as_f64().unwrap();
    for peer in ["lockstep", "homogeneous"] {
        let ratio = modes["depth"]["tokens_per_second_over"][peer].as_f64().unwrap();
        assert!((ratio - rate("depth") / rate(peer)).abs() < 1e-9, "{peer}");
    }
    let names: Vec<_> = modes.keys().collect();
    assert_eq!(names, ["depth", "drafts", "full-depth", "homogeneous", "lockstep"]);
    assert_eq!(report["machine"]["threads"], 1);
    assert_eq!(
        (&report["settings"]["shape"], &report["settings"]["weights"]),
        (&SHAPE.into(), &"f32".into())
    );
    let arithmetic =
        |format: &str| json(&["--weights", format, "--modes", "depth"])["machine"]["arithmetic"].clone();
    assert_eq!((arithmetic("f32"), arithmetic("int8")), ("f32".into(), "int8".into()));
    assert!(arithmetic("bf16").as_str().unwrap().starts_with("bf16"));
    let on_ranks = json(&["--tp", "2", "--modes", "depth"]);
    assert_eq!(on_ranks["settings"]["tp"], 2);
}

#[test]
fn schedulers_do_the_same_core_iterations_on_every_distribution_and_lane_count() {
    let distributions = ["uniform:1:6", "geometric:2:6", "bimodal:1:6", "fixed:3"];
    let flags = distributions.iter().flat_map(|depths| ["--depths", depths]);
    let report = json(&flags.chain(["--lanes", "8"]).collect::<Vec<_>>());
    let measurements = report["measurements"].as_array().unwrap();
    assert_eq!((measurements.len(), report.get("modes")), (8, None));
    for measurement in measurements {
        let needed = &measurement["rows_needed"];
        let needed =
            needed["prompt"]["core"].as_u64().unwrap() + needed["generated"]["core"].as_u64().unwrap();
        let core_rows = |mode: &str| measurement["modes"][mode]["core_rows"].as_u64().unwrap();
        let depths = measurement["depths"].as_str().unwrap();
        for mode in ["depth", "lockstep", "homogeneous"] {
            assert_eq!(core_rows(mode), needed, "{depths}: {mode}");
        }
        assert!(core_rows("drafts") >= needed, "{depths}");
        assert!(
            core_rows("full-depth") >= needed && (core_rows("full-depth") == needed) == (depths == "fixed:3")
        );
    }
}

#[test]
fn drafts_are_made_as_asked_for_and_in_their_mode_alone() {
    let with = |flags: &[&str]| json(&[&["--depths", "fixed:6", "--modes", "depth,drafts"], flags].concat());
    let every = with(&["--draft", "1"]);
    let drafts = |report: &Value, mode: &str| report["modes"][mode]["drafts"].as_u64().unwrap();
    assert_eq!(every["settings"]["draft"], "1");
    assert!(drafts(&every, "drafts") > 0 && drafts(&every, "depth") == 0);
    assert!(every["modes"]["drafts"]["drafts_kept"].as_u64().unwrap() <= drafts(&every, "drafts"));
    let off = with(&["--draft", "off"]);
    assert_eq!((off["settings"]["draft"].as_str().unwrap(), drafts(&off, "drafts")), ("off", 0));
    assert_eq!(with(&[])["settings"]["draft"], "auto");
}

#[test]
fn depths_of_a_file_are_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("depths.jsonl");
    fs::write(&file, "[4, 1, 2]\n[3, 3]\n").unwrap();
    let report = json(&["--depths", file.to_str().unwrap(), "--prompt", "2", "--modes", "depth"]);
    let measurement = &report["measurements"][0];
    assert_eq!((&measurement["requests"], &measurement["tokens"]), (&Value::from(2), &Value::from(5)));
    // Two prompts of two positions at the deepest, 4; then 1, 2 and 3.
    assert_eq!(report["modes"]["depth"]["core_rows"], 2 * 2 * 4 + 1 + 2 + 3);
}

#[test]
fn the_trace_has_a_track_per_mode_and_an_event_per_launch() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace.json");
    let report = json(&["--depths", "uniform:1:4", "--trace", file.to_str().unwrap()]);
    let trace: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let of_type = |kind: &str| events.iter().filter(|event| event["ph"] == kind).collect::<Vec<_>>();
    let tracks: Vec<_> = of_type("M").iter().map(|event| event["args"]["name"].as_str().unwrap()).collect();
    let modes = report["modes"].as_object().unwrap();
    assert_eq!(tracks.len(), 1 + modes.len(), "a name for the measurement and each of its modes");
    for (name, mode) in modes {
        let track = of_type("M").iter().find(|event| event["args"]["name"] == **name).unwrap()["tid"].clone();
        let launches = of_type("X").into_iter().filter(|event| event["tid"] == track);
        let core: Vec<_> = launches.filter(|event| event["name"] == "core").collect();
        let rows: u64 = core.iter().map(|event| event["args"]["rows"].as_u64().unwrap()).sum();
        assert_eq!(Value::from(rows), mode["core_rows"], "{name}");
        assert!(core.iter().all(|event| event["ts"].is_f64() && event["args"]["tick"].is_u64()));
    }
}

#[test]
fn people_get_tables_and_what_they_mean() {
    let text = small(&["--depths", "bimodal:1:4", "--lanes", "2", "--requests", "4"]);
    for expected in [
        "random weights: d=32,heads=2,ff=48,layers=1+2+1,vocabulary=64,context=64",
        "depths bimodal:1:4, 2 lanes: 4 requests, 20 tokens",
        "depths bimodal:1:4, 3 lanes: 6 requests, 30 tokens",
        "full-depth",
        "over lockstep",
        "over homogeneous",
        "best rates, ms a row: all: ",
        "share of gain: the time that the rows needed",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let at = |piece: &str| text.find(piece).unwrap_or_else(|| panic!("{piece}: {text}"));
    let in_order = [
        "random weights",
        "bimodal:1:4, 3 lanes, round 2 of 2, tokens/s: depth ",
        "depths bimodal:1:4, 3 lanes: ",
        "bimodal:1:4, 2 lanes, round 1 of 2, tokens/s: depth ",
        "depths bimodal:1:4, 2 lanes: ",
        "share of gain: the time",
    ];
    assert!(in_order.map(at).is_sorted(), "each result as soon as it is known: {text}");
    assert!(
        bench(&["--model", "demo", "--requests", "1", "--tokens", "1", "--rounds", "1"]).status.success()
    );
}

#[test]
fn help_says_what_is_measured() {
    let help = String::from_utf8(bench(&["--help"]).stdout).unwrap();
    for expected in [
        "--shape",
        "uniform:LOW:HIGH",
        "Share of the theoretical gain:",
        "lockstep:",
        "full-depth:",
        "homogeneous:",
    ] {
        assert!(help.contains(expected), "{expected}: {help}");
    }
}

#[test]
fn flags_that_cannot_be_run_are_refused_by_name_and_value() {
    let huge = "d=8192,heads=64,ff=65536,layers=64+64+64,vocabulary=500000";
    let cases: [(&[&str], i32, &str); 26] = [
        (
            &["--shape", "width=3"],
            2,
            "invalid value 'width=3' for '--shape <KEY=VALUE,…>': unknown key 'width': use d",
        ),
        (&["--shape", "d=10,heads=3"], 2, "heads is 3: use a number that divides the width, 10"),
        (&["--shape", "d=32", "--model", "demo"], 2, "cannot be used with"),
        (&["--shape", huge], 1, "error: lanes is 16: weights take "),
        (&["--model", "/no/such"], 1, "error: model: /no/such cannot be read"),
        (&["--model", ""], 1, "error: model is empty"),
        (
            &["--depths", "uniform:0:4"],
            2,
            "invalid value 'uniform:0:4' for '--depths <DEPTHS>': the lowest depth is 0",
        ),
        (
            &["--depths", "normal:8"],
            1,
            "error: depths: normal:8 is no known distribution and cannot be read as a file",
        ),
        (&["--lanes", "0"], 2, "invalid value '0' for '--lanes <N,…>'"),
        (&["--lanes", "4,x"], 2, "invalid value 'x' for '--lanes <N,…>'"),
        (&["--requests", "0"], 2, "invalid value '0' for '--requests <N,…>'"),
        (
            &["--lanes", "1,2", "--requests", "1,2,3"],
            1,
            "error: requests has 3 numbers: give one, or one for each of --lanes, which has 2",
        ),
        (&["--tokens", "0"], 2, "invalid value '0' for '--tokens <N>'"),
        (&["--prompt", "-1"], 2, "invalid value '-1' for '--prompt <N>'"),
        (
            &["--tokens", "300"],
            1,
            "error: tokens is 300: with prompt, 4, more than the context of 256: use fewer",
        ),
        (&["--prompt", "256"], 1, "error: tokens is 64: with prompt, 256, more than the context of 256"),
        (&["--rounds", "0"], 2, "invalid value '0' for '--rounds <N>'"),
        (&["--modes", "depth,depth"], 1, "error: modes has depth twice: give each mode once"),
        (&["--weights", "f16"], 2, "invalid value 'f16' for '--weights <f32|bf16|int8>'"),
        (&["--modes", "best"], 2, "invalid value 'best' for '--modes <MODE,…>'"),
        (&["--kv", "ring:0"], 1, "error: kv: ring 0 is out of range: use 1 to 32"),
        (
            &["--draft", "0"],
            2,
            "invalid value '0' for '--draft <off|auto|ITERATIONS>': draft is '0': use off, auto or a number of iterations",
        ),
        (
            &["--draft", "4", "--modes", "depth"],
            1,
            "draft is 4, and modes has no drafts: add it, or leave draft out",
        ),
        (
            &["--coalesce", "on"],
            2,
            "invalid value 'on' for '--coalesce <off|auto|TICKS>': coalesce is 'on': use off",
        ),
        (&["--max-rows", "0"], 2, "invalid value '0' for '--max-rows <N>'"),
        (&["--trace", "/no/such/folder/trace"], 1, "error: trace: /no/such/folder/trace cannot be written"),
    ];
    for (arguments, status, expected) in cases {
        let output = bench(arguments);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {message}");
        assert!(output.stdout.is_empty() && message.contains(expected), "{arguments:?}: {message}");
    }
}

#[test]
fn a_cluster_loses_no_stream_when_workers_are_killed_and_reports_every_measurement() {
    let size =
        ["--workers", "20", "--streams", "20", "--rounds", "1", "--interval-ms", "32", "--tokens", "30"];
    let mut command = windlass(&["bench", "cluster", "--json"]);
    let output = command.args(size).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let recovery = &report["recovery"];
    assert_eq!((&recovery["workers_killed"], &recovery["streams_failed"]), (&2.into(), &0.into()));
    assert_eq!(recovery["answers_changed"], 0);
    assert_eq!(report["balance"]["requests"], 200);
    assert!(report["balance"]["largest_over_mean"].as_f64().unwrap() >= 1.0);
    let latency = &report["latency"];
    assert_eq!(
        (latency["tokens_per_second"].as_f64(), latency["rounds"].as_array().unwrap().len()),
        (Some(625.0), 1)
    );
    let throughput = report["throughput"].as_array().unwrap();
    assert_eq!(throughput.len(), 3);
    for rate in throughput.iter().flat_map(|rates| [&rates["direct"], &rates["coordinator"]]) {
        assert!(rate["requests_per_second"].as_f64().unwrap() > 0.0);
    }
}
