//! `windlass rank`: one of a worker's ranks, in a process of its own.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use windlass_worker::serve_rank;

use crate::config::{ConfigFile, RankOptions};
use crate::load_bar::LoadBar;
use crate::process::shutdown_signal;

/// Computes a part of a worker's model, on this machine or another
///
/// It joins a worker that was started with --tp-listen and --tp or --stages, and ends with it. If it is lost, or the worker, both are.
#[derive(Debug, Args)]
pub(crate) struct RankArguments {
    /// TOML file of settings, section `rank`; flags and environment variables go before it
    #[arg(long, value_name = "FILE", env = "WINDLASS_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    rank: RankOptions,
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

/// Runs the command.
pub(crate) async fn run(arguments: RankArguments) -> Result<()> {
    let file = ConfigFile::read(arguments.config.as_deref())?;
    let config = arguments.rank.or(file.rank).config()?;
    let shutdown = shutdown_signal(arguments.exit_with_stdin)?;
    let mut bar = LoadBar::default();
    Ok(serve_rank(config, move |progress| bar.update(progress), shutdown).await?)
}
