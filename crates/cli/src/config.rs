//! Settings of the servers: flags and environment variables first, then a TOML file, then defaults.

mod coordinator;
mod etcd;
mod file;
mod gpu;
mod jobs;
mod rank;
mod tls;
mod worker;

use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use windlass_kernels::WeightFormat;
use windlass_model::ModelFolder;

pub(crate) use coordinator::CoordinatorOptions;
pub(crate) use etcd::{EtcdOptions, EtcdSettings};
pub(crate) use file::ConfigFile;
pub(crate) use gpu::gpu_config;
pub(crate) use jobs::JobsOptions;
pub(crate) use rank::RankOptions;
pub(crate) use tls::TlsOptions;
pub(crate) use worker::WorkerOptions;

const MOST_THREADS: usize = 1024;

/// As many threads as asked for, or one per core.
pub(crate) fn thread_count(asked: Option<usize>) -> Result<usize> {
    match asked {
        None => Ok(available_parallelism().map_or(1, usize::from)),
        Some(threads) if (1..=MOST_THREADS).contains(&threads) => Ok(threads),
        Some(threads) => bail!("threads is {threads}: use 1 to {MOST_THREADS}"),
    }
}

/// How long a silent rank is taken to live.
fn rank_timeout(asked_ms: Option<u64>) -> Result<Duration> {
    match asked_ms.unwrap_or(10_000) {
        ms @ 100..=3_600_000 => Ok(Duration::from_millis(ms)),
        ms => bail!("rank_timeout_ms is {ms}: use 100 to 3600000"),
    }
}

fn weight_format(name: &str) -> Result<WeightFormat> {
    name.parse().map_err(|_| anyhow!("weights is '{name}': use f32, bf16 or int8"))
}

/// The model that the setting `model` names.
pub(crate) fn model_folder(model: &str) -> Result<ModelFolder> {
    if model.is_empty() {
        bail!("model is empty: name its folder, or demo for the one in this program");
    }
    ModelFolder::from_argument(model).context("model")
}

/// Refuses what is no `host:port`.
fn checked_address(field: &str, address: String) -> Result<String> {
    let is_address = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok());
    if !is_address {
        bail!("{field} is '{address}': use HOST:PORT, such as 127.0.0.1:8000");
    }
    Ok(address)
}

/// Sets what was asked for.
fn set<T>(setting: &mut T, asked: Option<T>) {
    if let Some(asked) = asked {
        *setting = asked;
    }
}
