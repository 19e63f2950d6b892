//! Servers of this binary as child processes.

use std::env;
use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The flag that makes a server end when its standard input does, and with it the parent.
pub(crate) const EXIT_WITH_STDIN: &str = "--exit-with-stdin";
/// How long a server may take until it serves.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a server may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A server that runs as a child and says on its first line where it listens. It dies with its parent.
pub(crate) struct Server {
    name: String,
    child: Child,
    /// Kept open, so that the server can write to it.
    _stdout: BufReader<ChildStdout>,
    /// What the server said.
    pub(crate) greeting: String,
}

impl Server {
    /// Starts `windlass` with these arguments and waits until it serves.
    pub(crate) async fn start(name: &str, arguments: &[&str]) -> Result<Self> {
        let executable = env::current_exe().context("cannot find the path of this program")?;
        let mut command = Command::new(executable);
        command
            .args(arguments)
            .arg(EXIT_WITH_STDIN)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        // The arguments say it all; what the environment says is meant for servers that the user starts.
        for variable in settings_in_environment() {
            command.env_remove(variable);
        }
        if env::var_os("WINDLASS_LOG").is_none() {
            command.env("WINDLASS_LOG", "warn");
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let mut stdout = BufReader::new(child.stdout.take().context("the child has no standard output")?);
        let mut greeting = String::new();
        timeout(START_LIMIT, stdout.read_line(&mut greeting))
            .await
            .with_context(|| format!("{name} did not serve within {} s", START_LIMIT.as_secs()))?
            .with_context(|| format!("cannot read from {name}"))?;
        if greeting.is_empty() {
            let status = child.wait().await.with_context(|| format!("cannot wait for {name}"))?;
            bail!("{name} ended before it served: {status}");
        }
        Ok(Self { name: name.to_owned(), child, _stdout: stdout, greeting: greeting.trim_end().to_owned() })
    }

    /// Its id, while it runs.
    pub(crate) fn process(&self) -> Option<u32> {
        self.child.id()
    }

    /// The address that follows `prefix` in the greeting.
    pub(crate) fn address_after(&self, prefix: &str) -> Result<&str> {
        let start = self.greeting.find(prefix).map(|at| at + prefix.len());
        let address = start.and_then(|start| self.greeting[start..].split_whitespace().next());
        address.with_context(|| format!("{} said '{}' instead of where it listens", self.name, self.greeting))
    }

    /// Asks the server to end, and waits for it.
    pub(crate) async fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = timeout(STOP_LIMIT, self.child.wait())
            .await
            .with_context(|| format!("{} did not end within {} s", self.name, STOP_LIMIT.as_secs()))?
            .with_context(|| format!("cannot wait for {}", self.name))?;
        if !status.success() {
            bail!("{} failed: {status}", self.name);
        }
        Ok(())
    }
}

fn settings_in_environment() -> impl Iterator<Item = OsString> {
    env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with("WINDLASS_") && !name.starts_with("WINDLASS_LOG")
    })
}

/// What ends a server: SIGINT, SIGTERM or, for a child, the end of its standard input.
pub(crate) fn shutdown_signal(exit_with_stdin: bool) -> Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let stdin_ended = stdin_end(exit_with_stdin);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = stdin_ended => {}
        }
    })
}

/// Ends with standard input if `watched`, else never.
fn stdin_end(watched: bool) -> impl Future<Output = ()> + Send + 'static {
    let (ended, end) = oneshot::channel();
    if watched {
        // A thread of its own: the runtime would wait for a blocking read when it shuts down.
        std::thread::spawn(move || {
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            let _ = ended.send(());
        });
        return futures::future::Either::Left(async move {
            let _ = end.await;
        });
    }
    futures::future::Either::Right(std::future::pending())
}
