//! Accepted jobs are finished, whoever dies, and each item gets the answer it would have got alone.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use windlass_client::{
    Client, Depth, GenerateOptions, GenerateRequest, ItemResult, Job, JobItem, JobSpec, JobState, Prompt,
};
use windlass_proto::v1::{TokenIds, item_result, job_item};
use windlass_tests::{Server, binary, eventually, python};

const ITEMS: usize = 2000;
/// An item whose prompt is no token of the model's.
const BAD: usize = 777;

fn worker() -> Result<Server> {
    Server::windlass(&["worker", "--listen", "127.0.0.1:0", "--model", "demo", "--threads", "1"])
}

/// A coordinator that keeps jobs in this folder, and may write below it.
async fn coordinator(worker: &Server, folder: &Path) -> Result<(Server, Client)> {
    let jobs = folder.join("jobs").display().to_string();
    coordinator_with(&["--workers", worker.address("listening on ")?, "--jobs-dir", &jobs], folder).await
}

/// A coordinator with these arguments whose jobs may write below this folder, ready.
pub(super) async fn coordinator_with(arguments: &[&str], folder: &Path) -> Result<(Server, Client)> {
    let uris = format!("file://{}", folder.display());
    let fixed = ["coordinator", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--jobs-uris", &uris];
    let server = Server::windlass(&[&fixed, arguments].concat())?;
    let ready = format!("http://{}/ready", server.address("http://")?);
    eventually("the coordinator is ready", || async {
        Ok(reqwest::get(&ready).await?.status().is_success())
    })
    .await?;
    let client = Client::connect(server.address("grpc://")?).await?;
    Ok((server, client))
}

fn options() -> GenerateOptions {
    GenerateOptions { max_tokens: Some(2), depth: Some(Depth::Fixed(2)), ..GenerateOptions::default() }
}

fn prompt(index: usize) -> String {
    format!("{}+{}=", index % 10, index / 10 % 10)
}

fn items() -> Vec<JobItem> {
    let item = |index| {
        let prompt = match index {
            BAD => job_item::Prompt::TokenIds(TokenIds { ids: vec![u32::MAX] }),
            index => job_item::Prompt::Text(prompt(index)),
        };
        JobItem { id: format!("item {index}"), prompt: Some(prompt), ..JobItem::default() }
    };
    (0..ITEMS).map(item).collect()
}

#[tokio::test]
async fn a_killed_coordinator_finishes_its_jobs_when_it_comes_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let worker = worker()?;
    let (mut first, client) = coordinator(&worker, folder.path()).await?;
    let output = folder.path().join("out.jsonl");
    let job = submit(&client, &output).await?;
    let before = some_are_done(&client, &job.id).await?;
    first.kill()?;

    let (_second, client) = coordinator(&worker, folder.path()).await?;
    let jobs: Vec<Job> = client.watch_job(&job.id).await?.try_collect().await?;
    let back = jobs.first().context("no job")?;
    ensure!(before.ended_ms.is_none() && back.ended_ms.is_none(), "it was over before the kill: {before:?}");
    is_whole(&client, &job.id, &output).await
}

/// Submits a job of many items, whose output goes to this file.
pub(super) async fn submit(client: &Client, output: &Path) -> Result<Job> {
    let (stop, parameters) = options().into_parameters();
    let output_uri = Some(format!("file://{}", output.display()));
    let spec = JobSpec { parameters: Some(parameters), stop, output_uri, ..JobSpec::default() };
    Ok(client.submit_job(spec, stream::iter(items())).await?)
}

/// Whether the job has ended, and every item has what it gets alone, once and in order, in its results and its output.
pub(super) async fn is_whole(client: &Client, id: &str, output: &Path) -> Result<()> {
    let job = client.get_job(id).await?;
    ensure!(job.state() == JobState::Succeeded && job.error.is_empty(), "{job:?}");
    ensure!((job.succeeded, job.failed) == (ITEMS as u64 - 1, 1), "{job:?}");
    let results: Vec<_> = client.job_results(id, "").await?.try_collect().await?;
    ensure!(results.len() == ITEMS, "{} results", results.len());
    let checks = results.iter().enumerate().map(|(index, (result, _))| check(client, index, result));
    stream::iter(checks).buffer_unordered(32).try_collect::<()>().await?;
    let lines = fs::read_to_string(output)?;
    for (index, (line, (result, _))) in lines.lines().zip(&results).enumerate() {
        let line: Value = serde_json::from_str(line)?;
        ensure!(line["index"] == index && line["id"] == format!("item {index}"), "{line}");
        match &result.outcome {
            Some(item_result::Outcome::Answer(answer)) => {
                ensure!(line["text"] == answer.text && line["seed"] == answer.seed, "{line} {answer:?}");
                ensure!(line["depths"] == json!(answer.depths) && line["mean_depth"] == 2.0, "{line}");
                ensure!(line["token_ids"] == json!(answer.token_ids) && line["error"].is_null(), "{line}");
            }
            other => ensure!(index == BAD && !line["error"].is_null(), "{line} {other:?}"),
        }
    }
    ensure!(lines.lines().count() == ITEMS, "the output has {} lines", lines.lines().count());
    Ok(())
}

/// Waits until some items of the job are done.
pub(super) async fn some_are_done(client: &Client, id: &str) -> Result<Job> {
    let mut progress = Box::pin(client.watch_job(id).await?);
    while let Some(job) = progress.next().await {
        let job = job?;
        if job.succeeded > 100 {
            return Ok(job);
        }
    }
    bail!("the job ended with less")
}

/// Whether the item got what it gets alone.
async fn check(client: &Client, index: usize, result: &ItemResult) -> Result<()> {
    ensure!(result.index == index as u64 && result.id == format!("item {index}"), "{index}: {result:?}");
    match result.outcome.as_ref().context("no outcome")? {
        item_result::Outcome::Error(error) => {
            ensure!(index == BAD && error.code == "invalid_request", "{index}: {error:?}");
        }
        item_result::Outcome::Answer(answer) => {
            let mut options = options();
            options.sampling.seed = Some(answer.seed);
            let request =
                GenerateRequest { model: String::new(), prompt: Prompt::Text(prompt(index)), options };
            let alone = client.generate_whole(request).await?;
            let ids: Vec<u32> = alone.tokens.iter().map(|token| token.id).collect();
            ensure!(
                (&answer.text, &answer.token_ids) == (&alone.text, &ids),
                "{index}: {answer:?} {alone:?}"
            );
            ensure!(answer.depths == alone.depths(), "{index}: {answer:?} {alone:?}");
        }
    }
    Ok(())
}

fn jobs(server: &Server, arguments: &[&str]) -> Result<Output> {
    let address = server.address("grpc://")?;
    Ok(Command::new(binary("windlass")?).args(["jobs", "--address", address]).args(arguments).output()?)
}

#[tokio::test]
async fn the_command_submits_a_file_waits_and_writes_the_results() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let worker = worker()?;
    let (server, _) = coordinator(&worker, folder.path()).await?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (input, output) = (path("in.jsonl"), path("out.jsonl"));
    fs::write(
        &input,
        "{\"prompt\": \"7+5=\"}\n{\"id\": \"b\", \"prompt\": \"1+1=\", \"parameters\": {\"max_tokens\": 1}}\n",
    )?;
    let flags = ["--depth", "fixed:16", "--temperature", "0", "--max-tokens", "2"];
    let submitted =
        jobs(&server, &[&["submit", &input, "--wait", "--output", &output], &flags[..]].concat())?;
    ensure!(submitted.status.success(), "{submitted:?}");
    let lines: Vec<Value> =
        fs::read_to_string(&output)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(lines.len() == 2 && lines[0]["text"] == "2" && lines[1]["id"] == "b", "{lines:?}");
    ensure!(lines[1]["depths"] == json!([16]), "{lines:?}");
    let id = String::from_utf8(submitted.stdout)?.lines().next().context("no id")?.to_owned();

    let listed = jobs(&server, &["list", "--json"])?;
    let job: Value = serde_json::from_slice(&listed.stdout)?;
    ensure!(job["id"] == id.as_str() && job["state"] == "succeeded" && job["mean_depth"] == 16.0, "{job}");
    let rest = jobs(&server, &["results", &id, "--resume", "0"])?;
    ensure!(String::from_utf8(rest.stdout)?.lines().count() == 1, "the first is not repeated");
    ensure!(jobs(&server, &["watch", &id])?.status.success(), "it has ended well");

    let piped = Command::new(binary("windlass")?)
        .args(["jobs", "--address", server.address("grpc://")?, "submit", "--max-tokens", "1", "--wait"])
        .stdin(fs::File::open(&input)?)
        .output()?;
    ensure!(piped.status.success(), "{piped:?}");
    let from_there = format!("file://{input}");
    let submitted = jobs(&server, &["submit", "--input-uri", &from_there, "--max-tokens", "1", "--wait"])?;
    ensure!(submitted.status.success(), "{submitted:?}");
    Ok(())
}

#[tokio::test]
async fn the_command_says_what_is_wrong() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let worker = worker()?;
    let (server, client) = coordinator(&worker, folder.path()).await?;
    let said = |output: Output| -> Result<String> {
        ensure!(output.status.code() == Some(1), "{output:?}");
        Ok(String::from_utf8(output.stderr)?)
    };
    let input = folder.path().join("in.jsonl").display().to_string();
    fs::write(&input, "{\"prompt\": \"1\"}\n{\"prompt\": \"1\", \"depth\": 3}\n")?;
    let wrong = said(jobs(&server, &["submit", &input])?)?;
    ensure!(wrong.contains("in.jsonl line 2: depth: unknown field 'depth'"), "{wrong}");
    ensure!(client.list_jobs(None, "").await?.0.is_empty(), "a part of a file was accepted");
    let foreign = said(jobs(&server, &["submit", "--input-uri", "file:///etc/passwd"])?)?;
    ensure!(foreign.contains("input_uri: 'file:///etc/passwd' is not allowed here"), "{foreign}");
    let output = said(jobs(&server, &["submit", &input, "--output", "x"])?)?;
    ensure!(output.contains("output: a file is written at the job's end only: add --wait"), "{output}");
    fs::write(&input, "{\"prompt\": \"1\"}\n")?;
    let nowhere = said(jobs(&server, &["submit", &input, "--wait", "--output", "/nowhere/x"])?)?;
    ensure!(nowhere.contains("output: cannot write"), "{nowhere}");
    ensure!(client.list_jobs(None, "").await?.0.is_empty(), "a job was accepted whose output goes nowhere");
    fs::write(
        &input,
        "{\"prompt\": [99999]}\n{\"prompt\": \"1+1=\", \"parameters\": {\"max_tokens\": 1}}\n",
    )?;
    let failed = said(jobs(&server, &["submit", &input, "--wait"])?)?;
    ensure!(failed.contains("1 of 2 items failed: their results say why"), "{failed}");
    let id = client.list_jobs(None, "").await?.0.remove(0).id;
    let behind = said(jobs(&server, &["results", &id, "--resume", "9999"])?)?;
    ensure!(behind.contains("resume_token: '9999' is behind the last of 2 results"), "{behind}");
    let effort = said(jobs(&server, &["submit", &input, "--effort", "xx"])?)?;
    ensure!(effort.contains("'xx' is not an effort of this model: use one of low, medium, high"), "{effort}");
    let cold = said(jobs(&server, &["submit", &input, "--temperature", "-1"])?)?;
    ensure!(cold.contains("temperature: -1 is out of range: use a finite number of at least 0"), "{cold}");
    let deep = said(jobs(&server, &["submit", &input, "--depth", "fixed:9999"])?)?;
    ensure!(deep.contains("depth") && deep.contains("9999"), "{deep}");
    ensure!(client.list_jobs(None, "").await?.0.len() == 1, "a job was accepted that no item can be done of");
    let unknown = said(jobs(&server, &["get", "x"])?)?;
    ensure!(unknown.contains("there is no job 'x'"), "{unknown}");
    Ok(())
}

#[test]
fn a_jobs_input_items_results_and_output_can_lie_at_servers_of_object_stores() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let worker = worker()?;
    let (windlass, folder) = (binary("windlass")?.display().to_string(), folder.path().display().to_string());
    python("jobs_stores.py", &[&windlass, worker.address("listening on ")?, &folder])
}
