use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Runs a script of `tests/python` with the interpreter that `make test` prepares; it must exit with 0.
pub fn python(script: &str, arguments: &[&str]) -> Result<()> {
    let python =
        std::env::var("WINDLASS_TEST_PYTHON").context("WINDLASS_TEST_PYTHON is not set: run `make test`")?;
    let script = format!("{}/python/{script}", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python).arg(&script).args(arguments).output()?;
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    ensure!(output.status.success(), "{script}: {said}");
    Ok(())
}
