//! `windlass doctor`, on machines with and without a GPU.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Command, Output};

use serde_json::Value;

fn doctor(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WINDLASS_")) {
        command.env_remove(name);
    }
    // The first device is hidden where there is one, so that every machine is one without.
    command.env("CUDA_VISIBLE_DEVICES", "").arg("doctor").args(arguments).output().unwrap()
}

#[test]
fn the_processor_is_tested_with_every_format_and_passes() {
    let output = doctor(&["--selftest", "--json", "--threads", "2", "--model", "demo"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["selftest"].as_array().unwrap();
    for weights in ["f32", "bf16", "int8"] {
        let of_format: Vec<_> = checks.iter().filter(|check| check["weights"] == weights).collect();
        assert!(of_format.len() >= 8 && of_format.iter().all(|check| check["passed"] == true), "{weights}");
        assert!(of_format.iter().any(|check| check["operation"] == "answers alone and together"));
    }
    assert!(report["model"]["positions_ring_1"].as_u64() > report["model"]["positions_full"].as_u64());
    assert!(report["cuda_problem"].as_str().unwrap().contains("cuda"), "why there is no GPU is said");
}

#[test]
fn a_gpu_that_cannot_be_had_fails_with_what_is_missing_and_what_to_do() {
    for command in [
        "doctor --backend cuda --selftest",
        "generate --backend cuda --model demo --token-ids 1",
        "generate --backend cuda --model demo --token-ids 1 --stages 2",
        "bench engine --backend cuda --requests 1 --tokens 1",
        "worker --backend cuda --model demo --listen 127.0.0.1:0",
        "worker --backend cuda --model demo --listen 127.0.0.1:0 --tp 2 --stages 2",
        "worker --backend cuda --model demo --listen 127.0.0.1:0 --tp 2 --tp-listen 127.0.0.1:0",
        "rank --backend cuda --model demo --rank 1 --join 127.0.0.1:9",
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_windlass"))
            .env("CUDA_VISIBLE_DEVICES", "")
            .args(command.split(' '))
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {message}");
        assert!(!message.contains("panicked"), "{command:?}: {message}");
        let remedies = ["--features cuda", "install the driver", "nvidia-smi"];
        assert!(remedies.iter().any(|remedy| message.contains(remedy)), "{command:?}: {message}");
    }
}
