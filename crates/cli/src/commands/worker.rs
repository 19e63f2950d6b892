//! `windlass worker`: one engine behind gRPC.

use std::future::Future;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use windlass_worker::{Registration, Worker, WorkerConfig, registration};

use super::serve::{announce, bind};
use crate::config::{ConfigFile, EtcdOptions, TlsOptions, WorkerOptions};
use crate::load_bar::LoadBar;
use crate::process::shutdown_signal;

/// Serves a model to coordinators
#[derive(Debug, Args)]
pub(crate) struct WorkerArguments {
    /// TOML file of settings, sections `worker` and `etcd`; flags and environment variables go before it
    #[arg(long, value_name = "FILE", env = "WINDLASS_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    worker: WorkerOptions,
    #[command(flatten)]
    tls: TlsOptions,
    #[command(flatten)]
    etcd: EtcdOptions,
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

/// Runs the command.
pub(crate) async fn run(arguments: WorkerArguments) -> Result<()> {
    let file = ConfigFile::read(arguments.config.as_deref())?;
    let etcd = arguments.etcd.or(file.etcd);
    let options = arguments.worker.with_tls(arguments.tls).or(file.worker).with_etcd(&etcd);
    let settings = options.settings("127.0.0.1:8002")?;
    let etcd = etcd.settings()?;
    if settings.registration.is_some() && etcd.is_none() {
        bail!("registry is etcd and etcd_endpoints is not set: name members of etcd as http://HOST:PORT");
    }
    let lanes = settings.config.engine.max_lanes;
    let (listener, address) = bind("listen", &settings.listen).await?;
    let shutdown = shutdown_signal(arguments.exit_with_stdin)?;
    tokio::pin!(shutdown);
    let ranks = match &settings.tp_listen {
        Some(ranks) => Some(bind_ranks(ranks, settings.config.tp * settings.config.stages).await?),
        None => None,
    };
    let Some(worker) = load(settings.config, ranks, &mut shutdown).await? else { return Ok(()) };
    announce(&format!("worker listening on {address}"))?;
    let Some((etcd, registration)) = etcd.zip(settings.registration) else {
        return serve(worker, listener, shutdown).await;
    };
    let advertised = registration.advertise.unwrap_or_else(|| address.to_string());
    let (id, time_to_live) = (registration.id, registration.time_to_live);
    let member = registration::member(&worker.info(), advertised, lanes);
    let registration = Registration::start(etcd.store, &etcd.members, &id, member, time_to_live);
    serve_registered(worker, listener, shutdown, registration).await
}

/// Listens for the other ranks, and says where.
async fn bind_ranks(address: &str, ranks: usize) -> Result<TcpListener> {
    let (listener, address) = bind("tp_listen", address).await?;
    announce(&format!("rank 0 of {ranks} listening on {address}"))?;
    Ok(listener)
}

/// Serves until the shutdown, before which it leaves the list; also ends, with an error, if its id is another's.
async fn serve_registered(
    worker: Worker,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
    registration: Registration,
) -> Result<()> {
    let mut taken = None;
    let leave = async {
        tokio::select! {
            () = shutdown => {}
            other = registration.taken() => taken = Some(other),
        }
        registration.withdraw().await;
    };
    serve(worker, listener, leave).await?;
    taken.map_or(Ok(()), |taken| Err(taken.into()))
}

/// Loads the model, in a group with those who join at `ranks` if there are any, or gives up when told to shut down.
pub(super) async fn load(
    config: WorkerConfig,
    ranks: Option<TcpListener>,
    shutdown: impl Future<Output = ()>,
) -> Result<Option<Worker>> {
    let loading = spawn_blocking(move || {
        let mut bar = LoadBar::default();
        let progress = &mut |progress| bar.update(progress);
        match ranks {
            Some(ranks) => Worker::load_group(&config, ranks, progress),
            None => Worker::load(&config, progress),
        }
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
