//! Commands as a user runs them.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use windlass_tests::{Server, binary};

#[test]
fn the_demo_answers_puzzles_and_reports_what_depth_buys() -> Result<()> {
    let output = Command::new(binary("windlass")?).args(["demo", "--json", "--puzzles", "60"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let policies = report["policies"].as_array().context("no policies")?;
    let names: Vec<_> = policies.iter().filter_map(|policy| policy["policy"].as_str()).collect();
    assert_eq!(names, ["adaptive", "depth 1", "depth 4", "full (16)"]);
    let number = |policy: usize, field: &str| policies[policy][field].as_f64().unwrap_or(f64::NAN);
    ensure!(number(0, "accuracy") > 0.85, "adaptive: {}", policies[0]);
    ensure!(
        number(3, "accuracy") >= number(0, "accuracy"),
        "full depth answers fewer than adaptive: {report}"
    );
    ensure!(number(1, "accuracy") < 0.3, "depth 1 should not suffice: {}", policies[1]);
    ensure!(number(0, "mean_depth") < 0.8 * number(3, "mean_depth"), "adaptive saves nothing: {report}");
    ensure!(number(0, "core_iterations_saved") > 0.0 && number(0, "tokens_per_second") > 0.0, "{report}");
    Ok(())
}

#[test]
fn an_unknown_key_in_the_configuration_is_an_error_that_names_it() -> Result<()> {
    let file = std::env::temp_dir().join(format!("windlass-{}.toml", std::process::id()));
    std::fs::write(&file, "[worker]\nlisten = \"127.0.0.1:0\"\nthreds = 2\n")?;
    let path = file.to_str().context("a path in UTF-8")?;
    let output = Command::new(binary("windlass")?).args(["worker", "--config", path]).output()?;
    std::fs::remove_file(&file)?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && error.contains("threds"), "{error}");
    Ok(())
}

#[test]
fn the_example_configuration_is_one_that_servers_take() -> Result<()> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/windlass.toml");
    let mut worker = Server::windlass(&["worker", "--config", file, "--listen", "127.0.0.1:0"])?;
    let listen = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];
    let mut coordinator =
        Server::windlass(&[&["coordinator", "--config", file], listen.as_slice()].concat())?;
    let mut serve = Server::windlass(
        &[&["serve", "--config", file, "--listen", "127.0.0.1:0"], listen.as_slice()].concat(),
    )?;
    let ended = worker.terminate()? && coordinator.terminate()? && serve.terminate()?;
    ensure!(ended, "a server did not end with 0");
    Ok(())
}

#[test]
fn the_configurations_of_pods_are_ones_that_workers_take() -> Result<()> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kubernetes");
    let here = ["--listen", "127.0.0.1:0", "--registry", "none"];
    let processor = ["--backend", "cpu", "--model", "demo", "--kv-bytes", "16777216"];
    for file in ["windlass.toml", "gpu/windlass.toml"] {
        let config = format!("{folder}/{file}");
        let arguments = [&["worker", "--config", &config], here.as_slice(), &processor].concat();
        let mut worker = Server::windlass(&arguments).with_context(|| config)?;
        ensure!(worker.terminate()?, "{file}: the worker did not end with 0");
    }
    Ok(())
}
