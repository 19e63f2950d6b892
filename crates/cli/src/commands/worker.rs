//! `windlass worker`: one engine behind gRPC.

use std::future::Future;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use windlass_worker::{Worker, WorkerConfig};

use super::serve::{announce, bind};
use crate::config::{ConfigFile, TlsOptions, WorkerOptions};
use crate::load_bar::LoadBar;
use crate::process::shutdown_signal;

/// Serves a model to coordinators
#[derive(Debug, Args)]
pub(crate) struct WorkerArguments {
    /// TOML file of settings, section `worker`; flags and environment variables go before it
    #[arg(long, value_name = "FILE", env = "WINDLASS_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    worker: WorkerOptions,
    #[command(flatten)]
    tls: TlsOptions,
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

/// Runs the command.
pub(crate) async fn run(arguments: WorkerArguments) -> Result<()> {
    let file = ConfigFile::read(arguments.config.as_deref())?;
    let settings = arguments.worker.with_tls(arguments.tls).or(file.worker).settings("127.0.0.1:8002")?;
    let (listener, address) = bind("listen", &settings.listen).await?;
    let shutdown = shutdown_signal(arguments.exit_with_stdin)?;
    tokio::pin!(shutdown);
    let Some(worker) = load(settings.config, &mut shutdown).await? else { return Ok(()) };
    announce(&format!("worker listening on {address}"))?;
    serve(worker, listener, shutdown).await
}

/// Loads the model, or gives up when told to shut down.
pub(super) async fn load(config: WorkerConfig, shutdown: impl Future<Output = ()>) -> Result<Option<Worker>> {
    let loading = spawn_blocking(move || {
        let mut bar = LoadBar::default();
        Worker::load(&config, &mut |progress| bar.update(progress))
    });
    tokio::select! {
        worker = loading => Ok(Some(worker.context("loading the model broke off")??)),
        () = shutdown => Ok(None),
    }
}

/// Serves until the shutdown.
pub(super) async fn serve(
    worker: Worker,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    worker.serve(listener, shutdown).await.context("the worker failed")
}
