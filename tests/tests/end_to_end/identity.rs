//! A name stands for one model: workers that would answer differently never serve side by side.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use windlass_tests::{Cluster, Server, eventually};

fn worker(listen: &str, arguments: &[&str]) -> Result<Server> {
    Server::windlass(&[&["worker", "--listen", listen, "--threads", "1"], arguments].concat())
}

async fn models(cluster: &Cluster) -> Result<Vec<String>> {
    let list: Value = reqwest::get(format!("{}/v1/models", cluster.http)).await?.json().await?;
    let models = list["data"].as_array().into_iter().flatten();
    Ok(models.filter_map(|model| model["id"].as_str().map(str::to_owned)).collect())
}

#[tokio::test]
async fn a_worker_with_another_latent_seed_is_kept_out() -> Result<()> {
    let any = "127.0.0.1:0";
    let workers =
        vec![worker(any, &["--model", "demo"])?, worker(any, &["--model", "demo", "--latent-seed", "9"])?];
    let cluster = Cluster::of(workers).await?;
    let body =
        json!({"prompt": "gh wj", "temperature": 0, "max_tokens": 3, "logprobs": 0, "ignore_eos": true});
    let mut answers = Vec::new();
    for _ in 0..6 {
        let (status, mut answer) = cluster.post("/v1/completions", &body).await?;
        ensure!(status == 200, "{answer}");
        answers.push(answer["choices"][0]["logprobs"].take());
    }
    ensure!(answers.iter().all(|answer| *answer == answers[0]), "answers differ: {answers:?}");
    let used = [cluster.load(0).await?.ticks_total, cluster.load(1).await?.ticks_total];
    ensure!(used.contains(&0), "both workers were used: {used:?}");
    Ok(())
}

#[tokio::test]
async fn another_model_on_a_known_address_is_noticed() -> Result<()> {
    let mut cluster = Cluster::start(1, &[]).await?;
    let address = cluster.workers[0].address("listening on ")?.to_owned();
    cluster.workers[0].kill()?;
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/goldens/huginn-tiny");
    cluster.workers[0] = worker(&address, &["--model", tiny])?;
    eventually("the new model is listed alone", || async { Ok(models(&cluster).await? == ["huginn-tiny"]) })
        .await?;
    let body =
        json!({"model": "huginn-tiny", "prompt": [1, 2, 3], "max_tokens": 2, "return_token_ids": true});
    let (status, answer) = cluster.post("/v1/completions", &body).await?;
    ensure!(
        status == 200 && answer["choices"][0]["token_ids"].as_array().map(Vec::len) == Some(2),
        "{answer}"
    );
    Ok(())
}
