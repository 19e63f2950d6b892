use std::io::{IsTerminal, Write, stdin, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use windlass_client::{Client, GenerateOptions, Job, JobItem, JobSpec};
use windlass_jobs::parse_line;

use super::show::job_json;
use super::{results, watch};
use crate::policy_argument::{DepthArgument, finite};

/// Items that are read ahead of what was sent.
const AHEAD: usize = 64;

/// Submits a job: a file of JSON lines, each {"id"?, "prompt" or "messages", "parameters"?}
///
/// Parameters are named as in requests over HTTP; what a line leaves out is taken from the flags. Prints the job's id once it is
/// accepted.
#[derive(Debug, Args)]
pub(crate) struct SubmitArguments {
    /// File of items, or - for standard input [default: standard input, unless that is a terminal]
    #[arg(value_name = "FILE|-", conflicts_with = "input_uri")]
    file: Option<PathBuf>,
    /// Object, or folder of objects *.jsonl, that the server reads instead; below one of its jobs_uris
    #[arg(long, value_name = "URL")]
    input_uri: Option<String>,
    /// Where results go as JSON lines: a file, which needs --wait, or a URL that the server writes to, below one of its
    /// jobs_uris
    #[arg(long, value_name = "FILE|URL")]
    output: Option<String>,
    /// Name of the model [default: the only one served]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    model: String,
    /// Core iterations per token: `fixed:8`, or `adaptive:CRITERION:THRESHOLD[:MAX]` [default: the model's default effort]
    #[arg(long, value_name = "POLICY", conflicts_with = "effort")]
    depth: Option<DepthArgument>,
    /// One of the model's named depth policies
    #[arg(long, value_name = "NAME")]
    effort: Option<String>,
    /// Most tokens of each item [default: what the context and the K/V memory leave]
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// 0 takes the most likely token [default: 1]
    #[arg(long, value_name = "T", value_parser = finite)]
    temperature: Option<f32>,
    /// Of the waiting requests, those of higher priority go first; others have 0 [default: -10]
    #[arg(long, value_name = "N")]
    priority: Option<i32>,
    /// A name of your own for this job: submitting the same again returns the job there is
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Wait for the job's end, and show how it goes on
    #[arg(long)]
    wait: bool,
}

/// Runs the command.
pub(super) async fn run(client: &Client, arguments: SubmitArguments, json: bool) -> Result<()> {
    let (output_uri, output_file) = match &arguments.output {
        Some(output) if output.contains("://") => (Some(output.clone()), None),
        Some(_) if !arguments.wait => {
            bail!(
                "output: a file is written at the job's end only: add --wait, or use `windlass jobs results` later"
            )
        }
        output => (None, output.as_ref().map(PathBuf::from)),
    };
    let wait = arguments.wait;
    let (spec, file) = arguments.spec(output_uri);
    let file = match file {
        None if spec.input_uri.is_none() && stdin().is_terminal() => {
            bail!(
                "there are no items: name a file of JSON lines, pipe them in, or say with --input-uri where they are"
            )
        }
        None if spec.input_uri.is_none() => Some(PathBuf::from("-")),
        file => file,
    };
    // Before the job runs, since what cannot be written is better known before.
    let output_file = output_file.as_deref().map(results::create).transpose()?;
    let job = submit(client, spec, file.as_deref()).await?;
    if json {
        writeln!(stdout(), "{}", job_json(&job))?;
    } else {
        writeln!(stdout(), "{}", job.id)?;
    }
    if !wait {
        return Ok(());
    }
    let outcome = watch::to_the_end(client, &job.id, json).await;
    if let Some(file) = output_file {
        results::into(client, &job.id, "", file).await?;
    }
    outcome
}

impl SubmitArguments {
    /// The job, and the file of its items if they are not the server's to read.
    fn spec(self, output_uri: Option<String>) -> (JobSpec, Option<PathBuf>) {
        let depth = match (self.depth, self.effort) {
            (Some(depth), _) => Some(depth.into()),
            (None, effort) => effort.map(windlass_client::Depth::Effort),
        };
        let mut options =
            GenerateOptions { max_tokens: self.max_tokens, depth, ..GenerateOptions::default() };
        options.sampling.temperature = self.temperature;
        let (stop, parameters) = options.into_parameters();
        let spec = JobSpec {
            model: self.model,
            parameters: Some(parameters),
            stop,
            input_uri: self.input_uri,
            output_uri,
            idempotency_key: self.idempotency_key,
            priority: self.priority,
        };
        (spec, self.file)
    }
}

/// Sends the items of a file, if there is one, as they are read.
async fn submit(client: &Client, spec: JobSpec, file: Option<&Path>) -> Result<Job> {
    let (sender, items) = mpsc::channel(AHEAD);
    let Some(path) = file else {
        drop(sender);
        return Ok(client.submit_job(spec, ReceiverStream::new(items)).await?);
    };
    let check = async {
        if path == Path::new("-") {
            return send("standard input", tokio::io::stdin(), sender).await;
        }
        let name = path.display().to_string();
        let opened = File::open(path).await.with_context(|| format!("cannot read {name}"))?;
        send(&name, opened, sender).await
    };
    let (job, checked) = tokio::join!(client.submit_job(spec, ReceiverStream::new(items)), check);
    checked?;
    Ok(job?)
}

/// Sends the items that are read, and makes the server refuse the job if that fails.
async fn send(name: &str, from: impl AsyncRead + Unpin, to: mpsc::Sender<JobItem>) -> Result<()> {
    let sent = send_lines(name, from, &to).await;
    if sent.is_err() {
        // Of what ends too early the server would make a job; an item without a prompt it refuses. Where nobody takes it, the
        // server has refused the job already.
        let _ = to.send(JobItem::default()).await;
    }
    sent
}

/// Reads items line by line; an error names the line.
async fn send_lines(name: &str, from: impl AsyncRead + Unpin, to: &mpsc::Sender<JobItem>) -> Result<()> {
    let mut lines = BufReader::new(from).split(b'\n');
    let mut number = 0_u64;
    while let Some(line) = lines.next_segment().await.with_context(|| format!("cannot read {name}"))? {
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let item = parse_line(&line).map_err(|error| anyhow!("{name} line {number}: {error}"))?;
        if to.send(item).await.is_err() {
            // The server has refused the job already.
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::task::{self, Poll};

    use tokio::io::ReadBuf;

    use super::*;

    /// A file that cannot be read behind this.
    struct Broken(&'static str);

    impl AsyncRead for Broken {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let rest = std::mem::take(&mut self.0);
            buffer.put_slice(rest.as_bytes());
            Poll::Ready(if rest.is_empty() { Err(io::Error::other("unplugged")) } else { Ok(()) })
        }
    }

    #[tokio::test]
    async fn what_breaks_off_ends_with_an_item_that_is_refused() {
        let cases = [
            ("{\"prompt\": \"1+1=\"}\n", "cannot read in.jsonl"),
            ("{\"prompt\": \"1+1=\"}\n{}\n", "in.jsonl line 2: "),
        ];
        for (from, said) in cases {
            let (sender, mut items) = mpsc::channel(AHEAD);
            let error = send("in.jsonl", Broken(from), sender).await.unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
            assert!(items.recv().await.unwrap().prompt.is_some());
            assert_eq!(items.recv().await, Some(JobItem::default()));
            assert_eq!(items.recv().await, None);
        }
    }
}
