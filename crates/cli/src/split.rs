//! How a model is split over the devices of this process.

use anyhow::{Result, bail};
use windlass_kernels::{Backend, Cpu, CpuConfig};
use windlass_model::{ModelConfig, ModelFolder, Runner, Shard, Split, split, stages};

use crate::load_bar::LoadBar;

/// CPU backends, of each stage one for each of `tp` ranks, which share the threads.
pub(crate) fn cpus(cpu: CpuConfig, model: &ModelConfig, tp: usize, stages: usize) -> Result<Vec<Vec<Cpu>>> {
    stages::check(model, stages)?;
    Shard::all(model, tp)?;
    if cpu.threads < stages {
        bail!("threads is {}: use at least stages, which is {stages}", cpu.threads);
    }
    Ok(cpu.split(stages).map(|cpu| Cpu::group(cpu, tp)).collect())
}

/// Loads a folder's model onto backends, of each stage one for each rank, telling a bar how far that has come.
pub(crate) fn load<B: Backend>(
    backends: Vec<Vec<B>>,
    folder: &ModelFolder,
    model: &ModelConfig,
) -> Result<Box<dyn Runner>> {
    let mut bar = LoadBar::default();
    let split = Split::new(backends, model)?;
    Ok(split::runner(split.load(&folder.checkpoint()?, model, &mut |progress| bar.update(progress))?))
}

/// The same with random weights.
pub(crate) fn synthetic<B: Backend>(
    backends: Vec<Vec<B>>,
    model: &ModelConfig,
    seed: u64,
) -> Result<Box<dyn Runner>> {
    Ok(split::runner(Split::new(backends, model)?.synthetic(model, seed)))
}
