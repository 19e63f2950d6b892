//! The Python package `openai` against `windlass serve`.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use windlass_tests::{Server, eventually};

#[tokio::test]
async fn the_openai_package_completes_and_chats() -> Result<()> {
    let python =
        std::env::var("WINDLASS_TEST_PYTHON").context("WINDLASS_TEST_PYTHON is not set: run `make test`")?;
    let server =
        Server::windlass(&["serve", "--model", "demo", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"])?;
    let url = format!("http://{}", server.address("http://")?);
    eventually("serve is ready", || async {
        Ok(reqwest::get(format!("{url}/ready")).await?.status().is_success())
    })
    .await?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/openai_client.py");
    let output = Command::new(python).args([script, &format!("{url}/v1")]).output()?;
    ensure!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
