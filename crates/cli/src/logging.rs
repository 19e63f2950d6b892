//! Logs to standard error.

use std::env;
use std::io;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::depth_strip::colours_wanted;

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

const FILTER: &str = "WINDLASS_LOG";

/// Starts the log. `WINDLASS_LOG` says what to write, such as `debug` or `info,windlass_worker=debug`; else `default`.
pub(crate) fn start(format: LogFormat, default: &str) -> Result<()> {
    let directives = env::var(FILTER).unwrap_or_default();
    let directives = if directives.is_empty() { default } else { &directives };
    let filter = EnvFilter::try_new(directives).with_context(|| {
        format!("{FILTER} is '{directives}': use a level such as info, or info,windlass_worker=debug")
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(colours_wanted(&io::stderr())).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
