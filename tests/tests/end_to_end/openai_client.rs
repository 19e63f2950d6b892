//! The Python package `openai` against `windlass serve`.

use anyhow::Result;
use windlass_tests::{Server, eventually, python};

#[tokio::test]
async fn the_openai_package_completes_and_chats() -> Result<()> {
    let server =
        Server::windlass(&["serve", "--model", "demo", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"])?;
    let url = format!("http://{}", server.address("http://")?);
    eventually("serve is ready", || async {
        Ok(reqwest::get(format!("{url}/ready")).await?.status().is_success())
    })
    .await?;
    python("openai_client.py", &[&format!("{url}/v1")])
}
