//! `windlass coordinator`: the front of a cluster.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use windlass_coordinator::{Coordinator, Members};

use super::serve::{announce, bind, coordinator_line, with_jobs};
use crate::config::{ConfigFile, CoordinatorOptions, EtcdOptions, EtcdSettings, JobsOptions, TlsOptions};
use crate::process::shutdown_signal;

/// Takes requests over HTTP and gRPC and sends them to workers
#[derive(Debug, Args)]
pub(crate) struct CoordinatorArguments {
    /// TOML file of settings, sections `coordinator`, `etcd` and `jobs`; flags and environment variables go before it
    #[arg(long, value_name = "FILE", env = "WINDLASS_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    coordinator: CoordinatorOptions,
    #[command(flatten)]
    tls: TlsOptions,
    #[command(flatten)]
    etcd: EtcdOptions,
    #[command(flatten)]
    jobs: JobsOptions,
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

/// Runs the command.
pub(crate) async fn run(arguments: CoordinatorArguments) -> Result<()> {
    let file = ConfigFile::read(arguments.config.as_deref())?;
    let options = arguments.coordinator.with_tls(arguments.tls).or(file.coordinator);
    let etcd = arguments.etcd.or(file.etcd).settings()?;
    let settings = if etcd.is_some() { options.settings_with_etcd()? } else { options.settings()? };
    let jobs = arguments.jobs.or(file.jobs).settings(etcd.as_ref())?.open()?;
    let coordinator = match etcd {
        Some(EtcdSettings { store, members, .. }) => {
            Coordinator::following(settings.config, Members::watch(store, members))?
        }
        None => Coordinator::new(settings.config)?,
    };
    let coordinator = with_jobs(coordinator, jobs);
    let (http, http_address) = bind("http", &settings.http).await?;
    let (grpc, grpc_address) = bind("grpc", &settings.grpc).await?;
    let shutdown = shutdown_signal(arguments.exit_with_stdin)?;
    announce(&coordinator_line(http_address, grpc_address))?;
    Ok(coordinator.serve(http, grpc, shutdown).await?)
}
