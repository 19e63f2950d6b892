//! `windlass serve`: worker and coordinator in one process, with gRPC over loopback between them.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Arg, Args};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use windlass_coordinator::Coordinator;
use windlass_jobs::Jobs;

use super::worker;
use crate::config::{ConfigFile, CoordinatorOptions, EtcdOptions, JobsOptions, TlsOptions, WorkerOptions};
use crate::process::shutdown_signal;

/// Serves a model over HTTP and gRPC, all in one process
#[derive(Debug, Args)]
#[command(mut_args(hide_if_refused))]
pub(crate) struct ServeArguments {
    /// TOML file of settings, sections `worker`, `coordinator` and `jobs`; flags and environment variables go before it
    #[arg(long, value_name = "FILE", env = "WINDLASS_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    worker: WorkerOptions,
    #[command(flatten)]
    coordinator: CoordinatorOptions,
    // Of the fronts; the worker is reached over loopback, and has TLS only if its section of the file says so.
    #[command(flatten)]
    tls: TlsOptions,
    // Only to be refused.
    #[command(flatten)]
    etcd: EtcdOptions,
    #[command(flatten)]
    jobs: JobsOptions,
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

/// Leaves what is of no use here out of the help.
fn hide_if_refused(argument: Arg) -> Arg {
    let id = argument.get_id().as_str();
    let of_registry = ["registry", "worker_id", "advertise", "lease_ttl_s", "cluster"].contains(&id);
    let of_group = ["tp_listen", "rank_timeout_ms"].contains(&id);
    let is_refused = id == "workers" || of_registry || of_group || id.starts_with("etcd_");
    argument.hide(is_refused)
}

/// Runs the command.
pub(crate) async fn run(arguments: ServeArguments) -> Result<()> {
    let file = ConfigFile::read(arguments.config.as_deref())?;
    if arguments.coordinator.workers.is_some() {
        bail!(
            "workers is set, but serve runs a worker of its own: leave it out, or use the command coordinator"
        );
    }
    if let Some(field) = arguments.etcd.or(file.etcd).first_set() {
        bail!(
            "{field} is set, but serve is a cluster of its own: leave etcd out, or use the commands coordinator and worker"
        );
    }
    // The file's workers are meant for the command coordinator.
    let mut coordinator = arguments.coordinator.with_tls(arguments.tls).or(file.coordinator);
    let worker_options = arguments.worker.or(file.worker);
    let is_registered = worker_options.registry.as_deref().is_some_and(|registry| registry != "none");
    if let Some(field) = is_registered.then_some("registry").or(worker_options.first_of_registration()) {
        bail!(
            "{field} is set, but serve is a cluster of its own: leave it out, or use the commands coordinator and worker"
        );
    }
    let worker_settings = worker_options.settings("127.0.0.1:0")?;
    if worker_settings.tp_listen.is_some() {
        bail!(
            "tp_listen is set, but serve is one process: leave it out, or use the commands coordinator and worker"
        );
    }
    let (worker_listener, worker_address) = bind("listen", &worker_settings.listen).await?;
    coordinator.workers = Some(vec![worker_address.to_string()]);
    let settings = coordinator.settings()?;
    let jobs = arguments.jobs.or(file.jobs).settings(None)?.open()?;
    let coordinator = with_jobs(Coordinator::new(settings.config)?, jobs);
    let (http, http_address) = bind("http", &settings.http).await?;
    let (grpc, grpc_address) = bind("grpc", &settings.grpc).await?;

    let shutdown = shutdown_signal(arguments.exit_with_stdin)?;
    tokio::pin!(shutdown);
    let Some(worker) = worker::load(worker_settings.config, None, &mut shutdown).await? else {
        return Ok(());
    };
    // The worker ends after the coordinator, whose last requests it still answers.
    let (stop_worker, worker_stop) = oneshot::channel::<()>();
    let mut worker = tokio::spawn(worker::serve(worker, worker_listener, async {
        let _ = worker_stop.await;
    }));
    announce(&coordinator_line(http_address, grpc_address))?;
    tokio::select! {
        served = coordinator.serve(http, grpc, shutdown) => served?,
        ended = &mut worker => {
            ended.context("the worker broke off")??;
            bail!("the worker ended");
        }
    }
    drop(stop_worker);
    worker.await.context("the worker broke off")?
}

/// A coordinator that takes jobs, if they are kept.
pub(super) fn with_jobs(coordinator: Coordinator, jobs: Option<Jobs>) -> Coordinator {
    match jobs {
        Some(jobs) => coordinator.with_jobs(jobs),
        None => coordinator,
    }
}

/// Listens on the address that the setting `field` gives.
pub(super) async fn bind(field: &str, address: &str) -> Result<(TcpListener, SocketAddr)> {
    let failed = || format!("{field}: cannot listen on {address}");
    let listener = TcpListener::bind(address).await.with_context(failed)?;
    let bound = listener.local_addr().with_context(failed)?;
    Ok((listener, bound))
}

/// Says on standard output that a server serves now, in one line.
pub(super) fn announce(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

pub(super) fn coordinator_line(http: SocketAddr, grpc: SocketAddr) -> String {
    format!("coordinator listening on http://{http} and grpc://{grpc}")
}
