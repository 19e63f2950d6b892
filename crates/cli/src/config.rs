//! Settings of the servers: flags and environment variables first, then a TOML file, then defaults.

mod coordinator;
mod etcd;
mod file;
mod jobs;
mod tls;
mod worker;

use std::thread::available_parallelism;

use anyhow::{Result, bail};
use windlass_kernels::{Cpu, CpuConfig};
use windlass_model::{ModelConfig, ModelFolder, stages};

pub(crate) use coordinator::CoordinatorOptions;
pub(crate) use etcd::{EtcdOptions, EtcdSettings};
pub(crate) use file::ConfigFile;
pub(crate) use jobs::JobsOptions;
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

/// CPU backends for a model on this many stages, which share the threads.
pub(crate) fn backends(model: &ModelConfig, cpu: CpuConfig, stages: usize) -> Result<Vec<Cpu>> {
    stages::check(model, stages)?;
    if cpu.threads < stages {
        bail!("threads is {}: use at least stages, which is {stages}", cpu.threads);
    }
    Ok(cpu.split(stages).map(Cpu::with).collect())
}

/// The model that the setting `model` names.
pub(crate) fn model_folder(model: &str) -> Result<ModelFolder> {
    if model.is_empty() {
        bail!("model is empty: name its folder, or demo for the one in this program");
    }
    Ok(ModelFolder::from_argument(model)?)
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
