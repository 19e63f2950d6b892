//! How a model is split over the devices of this process.

use anyhow::{Result, bail};
use windlass_kernels::{Backend, Cpu, CpuConfig};
use windlass_model::split::runner;
use windlass_model::{ModelConfig, ModelFolder, Runner, Shard, Split, stages};

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

/// Loads a folder's model, telling a bar how far that has come.
pub(crate) fn load<B: Backend>(
    split: Split<B>,
    folder: &ModelFolder,
    model: &ModelConfig,
) -> Result<Box<dyn Runner>> {
    let mut bar = LoadBar::default();
    Ok(runner(split.load(&folder.checkpoint()?, model, &mut |progress| bar.update(progress))?))
}
