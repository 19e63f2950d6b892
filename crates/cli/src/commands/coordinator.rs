//! `windlass coordinator`: the front of a cluster.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use windlass_coordinator::Coordinator;

use super::serve::{announce, bind, coordinator_line, with_jobs};
use crate::config::{ConfigFile, CoordinatorOptions, JobsOptions, TlsOptions};
use crate::process::shutdown_signal;

/// Takes requests over HTTP and gRPC and sends them to workers
#[derive(Debug, Args)]
pub(crate) struct CoordinatorArguments {
    /// TOML file of settings, sections `coordinator` and `jobs`; flags and environment variables go before it
    #[arg(long, value_name = "FILE", env = "WINDLASS_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    coordinator: CoordinatorOptions,
    #[command(flatten)]
    tls: TlsOptions,
    #[command(flatten)]
    jobs: JobsOptions,
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

/// Runs the command.
pub(crate) async fn run(arguments: CoordinatorArguments) -> Result<()> {
    let file = ConfigFile::read(arguments.config.as_deref())?;
    let settings = arguments.coordinator.with_tls(arguments.tls).or(file.coordinator).settings()?;
    let jobs = arguments.jobs.or(file.jobs).settings()?.open()?;
    let coordinator = with_jobs(Coordinator::new(settings.config)?, jobs);
    let (http, http_address) = bind("http", &settings.http).await?;
    let (grpc, grpc_address) = bind("grpc", &settings.grpc).await?;
    let shutdown = shutdown_signal(arguments.exit_with_stdin)?;
    announce(&coordinator_line(http_address, grpc_address))?;
    Ok(coordinator.serve(http, grpc, shutdown).await?)
}
