//! Commands as a user runs them.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use windlass_tests::binary;

#[test]
fn the_demo_answers_puzzles_and_reports_what_depth_buys() -> Result<()> {
    let output = Command::new(binary("windlass")?).args(["demo", "--json", "--puzzles", "60"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let text = report.to_string();
    ensure!(text.contains("accuracy") && text.contains("depth"), "{text}");
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
