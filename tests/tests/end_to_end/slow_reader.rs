//! A client that does not read holds up nobody.

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use windlass_tests::Cluster;

#[tokio::test]
async fn others_are_answered_while_a_reader_sleeps() -> Result<()> {
    let cluster = Cluster::start(1, &[]).await?;
    let body = json!({
        "model": "demo", "prompt": "7+5=", "max_tokens": 240, "ignore_eos": true, "stream": true, "n": 16,
        "depth": {"fixed": 1}, "return_depths": true, "return_token_ids": true, "logprobs": 20,
    })
    .to_string();
    let mut sleepers = Vec::new();
    for _ in 0..4 {
        let mut socket = TcpStream::connect(cluster.http.trim_start_matches("http://")).await?;
        let head = "POST /v1/completions HTTP/1.1\r\nhost: windlass\r\ncontent-type: application/json\r\n";
        socket.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
        sleepers.push(socket);
    }
    for _ in 0..5 {
        let request = json!({"model": "demo", "prompt": "7+5=", "max_tokens": 2, "temperature": 0});
        let (status, answer) = cluster.post("/v1/completions", &request).await?;
        ensure!(status == 200 && answer["choices"][0]["text"] == "2", "{answer}");
    }
    // Their answers were made and wait for them, so no lane is held; hanging up frees the rest.
    cluster.is_idle().await?;
    drop(sleepers);
    let (status, _) = cluster.post("/v1/completions", &json!({"model": "demo", "prompt": "1+1="})).await?;
    ensure!(status == 200, "no answer after the sleepers left");
    Ok(())
}
