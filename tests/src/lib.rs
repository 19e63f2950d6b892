//! Windlass as processes: what the end-to-end tests start, ask and watch.

pub mod certificates;
pub mod etcd;
mod namespace;
mod python;
pub mod ranks;
mod signals;
pub mod streams;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use serde_json::Value;
use windlass_proto::v1::worker_client::WorkerClient;
use windlass_proto::v1::{LoadRequest, LoadResponse};
use windlass_transport::install_crypto_provider;

pub use namespace::Namespace;
pub use python::python;
pub use signals::signal;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server process. It is killed when dropped.
pub struct Server {
    child: Child,
    /// Its standard input, for servers that listen to it.
    pub stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    greeting: String,
}

impl Server {
    /// Starts `windlass` with these arguments and waits for the line that says where it listens.
    pub fn windlass(arguments: &[&str]) -> Result<Self> {
        Self::start(&binary("windlass")?, arguments)
    }

    /// Starts any binary of this build that greets as `windlass` does.
    pub fn start(binary: &PathBuf, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary);
        command.args(arguments);
        Self::run(command)
    }

    /// Starts `windlass` with these arguments, and writes its log of this level to a file.
    pub fn logging(arguments: &[&str], level: &str, log: File) -> Result<Self> {
        let mut command = Command::new(binary("windlass")?);
        command.args(arguments).env("WINDLASS_LOG", level).stderr(log);
        Self::run(command)
    }

    /// Starts a server by this command.
    pub fn run(mut command: Command) -> Result<Self> {
        // For HTTP clients that ask it.
        install_crypto_provider();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let stdin = child.stdin.take().context("no standard input")?;
        let mut server = Self { child, stdin, stdout: BufReader::new(stdout), greeting: String::new() };
        server.hear().with_context(|| format!("{command:?}"))?;
        Ok(server)
    }

    /// Waits for the next line that says where it listens.
    pub fn hear(&mut self) -> Result<()> {
        self.greeting.clear();
        self.stdout.read_line(&mut self.greeting)?;
        ensure!(self.greeting.contains("listening on"), "the greeting is '{}'", self.greeting);
        Ok(())
    }

    /// The `host:port` that follows `prefix` in the greeting.
    pub fn address(&self, prefix: &str) -> Result<&str> {
        let rest = self.greeting.split(prefix).nth(1).context("no such address in the greeting")?;
        rest.split_whitespace().next().context("nothing follows")
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process at once, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the process to end, and returns whether it exited with 0.
    pub fn terminate(&mut self) -> Result<bool> {
        signal(self.id(), "-TERM")?;
        self.wait()
    }

    /// Waits for its end, and returns whether it exited with 0.
    pub fn wait(&mut self) -> Result<bool> {
        Ok(self.child.wait()?.success())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// A binary of this build: it lies beside the directory of the running test.
pub fn binary(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.ancestors().nth(2).context("tests run from target/PROFILE/deps")?;
    let path = folder.join(name);
    ensure!(path.exists(), "{} is not built: run the tests of the whole workspace", path.display());
    Ok(path)
}

/// A coordinator and its workers.
pub struct Cluster {
    /// The coordinator's process.
    pub coordinator: Server,
    /// The workers' processes.
    pub workers: Vec<Server>,
    /// Base URL of the coordinator's HTTP front.
    pub http: String,
    /// Address of its gRPC front.
    pub grpc: String,
}

impl Cluster {
    /// `count` workers of the demo model with more arguments, and a coordinator, all ready.
    pub async fn start(count: usize, arguments: &[&str]) -> Result<Self> {
        let worker = || {
            let fixed = ["worker", "--listen", "127.0.0.1:0", "--model", "demo", "--threads", "1"];
            Server::windlass(&[&fixed, arguments].concat())
        };
        let cluster = Self::of((0..count).map(|_| worker()).collect::<Result<_>>()?).await?;
        cluster.all_ready().await?;
        Ok(cluster)
    }

    /// A coordinator for these workers, ready as soon as one of them is.
    pub async fn of(workers: Vec<Server>) -> Result<Self> {
        Self::with(workers, &[]).await
    }

    /// The same, with more arguments for the coordinator.
    pub async fn with(workers: Vec<Server>, arguments: &[&str]) -> Result<Self> {
        let addresses =
            workers.iter().map(|worker| worker.address("listening on ")).collect::<Result<Vec<_>>>()?;
        let addresses = addresses.join(",");
        let listen = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--workers", &addresses];
        let coordinator = Server::windlass(&[&["coordinator"], listen.as_slice(), arguments].concat())?;
        let http = format!("http://{}", coordinator.address("http://")?);
        let grpc = coordinator.address("grpc://")?.to_owned();
        let cluster = Self { coordinator, workers, http, grpc };
        eventually("the cluster is ready", || async {
            Ok(reqwest::get(format!("{}/ready", cluster.http)).await?.status().is_success())
        })
        .await?;
        Ok(cluster)
    }

    /// Waits until the coordinator has every worker; before, all requests go to those it has.
    pub async fn all_ready(&self) -> Result<()> {
        let all = format!("windlass_workers{{state=\"ready\"}} {}\n", self.workers.len());
        eventually("all workers are ready", || async {
            let metrics = reqwest::get(format!("{}/metrics", self.http)).await?;
            Ok(metrics.text().await?.contains(&all))
        })
        .await
    }

    /// Posts JSON and returns status and body.
    pub async fn post(&self, path: &str, body: &Value) -> Result<(u16, Value)> {
        let response = reqwest::Client::new().post(format!("{}{path}", self.http)).json(body).send().await?;
        let status = response.status().as_u16();
        Ok((status, response.json().await?))
    }

    /// Posts JSON and returns every SSE event until `[DONE]`.
    pub async fn stream(&self, path: &str, body: &Value) -> Result<Vec<Value>> {
        let client = reqwest::Client::new();
        let response = client.post(format!("{}{path}", self.http)).json(body).send().await?;
        ensure!(response.status().is_success(), "status {}: {}", response.status(), response.text().await?);
        let mut chunks = response.bytes_stream();
        let mut text = String::new();
        while let Some(chunk) = chunks.next().await {
            text.push_str(std::str::from_utf8(&chunk?)?);
        }
        let mut events: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        ensure!(events.pop() == Some("[DONE]"), "the stream does not end with [DONE]: {text}");
        events.into_iter().map(|event| Ok(serde_json::from_str(event)?)).collect()
    }

    /// How busy worker `index` says it is.
    pub async fn load(&self, index: usize) -> Result<LoadResponse> {
        let address = format!("http://{}", self.workers[index].address("listening on ")?);
        let mut client = WorkerClient::connect(address).await?;
        Ok(client.load(LoadRequest {}).await?.into_inner())
    }

    /// The sum of a metric over all its labels, as the coordinator tells it; 0 if it does not.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let page = reqwest::get(format!("{}/metrics", self.http)).await?.text().await?;
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let values =
            page.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(values.sum())
    }

    /// Waits until the coordinator has nothing under way.
    pub async fn coordinator_is_idle(&self) -> Result<()> {
        eventually("no request is under way", || async {
            Ok(self.metric("windlass_requests_running").await? == 0.0)
        })
        .await
    }

    /// Waits until no worker runs anything or holds any block.
    pub async fn is_idle(&self) -> Result<()> {
        self.are_idle(&(0..self.workers.len()).collect::<Vec<_>>()).await
    }

    /// Waits until these workers run nothing and hold no block.
    pub async fn are_idle(&self, workers: &[usize]) -> Result<()> {
        eventually("all blocks are free", || async {
            for &index in workers {
                let load = self.load(index).await?;
                if (load.running, load.waiting, load.blocks_used) != (0, 0, 0) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }
}

/// Polls until `condition` holds; an error from it counts as not yet.
pub async fn eventually<F: Future<Output = Result<bool>>>(
    what: &str,
    condition: impl Fn() -> F,
) -> Result<()> {
    let start = Instant::now();
    let mut last = None;
    while start.elapsed() < PATIENCE {
        match condition().await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("{what}: not within {PATIENCE:?} (last error: {last:?})")
}
