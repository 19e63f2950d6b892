//! How a model is split over the devices of this process.

use anyhow::{Result, bail};
use windlass_kernels::{Backend, Cpu, CpuConfig};
use windlass_model::{ModelConfig, ModelFolder, Ranks, Runner, Shard, stages};

use crate::load_bar::LoadBar;

/// How many parts of each kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Split {
    /// Ranks, each with a part of every layer.
    pub(crate) tp: usize,
    /// Stages, each with a part of the layers.
    pub(crate) stages: usize,
}

impl Split {
    /// Loads a folder's model, telling a bar how far that has come.
    pub(crate) fn load(
        self,
        cpu: CpuConfig,
        folder: &ModelFolder,
        model: &ModelConfig,
    ) -> Result<Box<dyn Runner>> {
        self.check(cpu, model)?;
        if self.stages > 1 {
            let backends = cpu.split(self.stages).map(Cpu::with).collect();
            let mut bar = LoadBar::default();
            let mut progress = |progress| bar.update(progress);
            return Ok(stages::load(backends, &folder.checkpoint()?, model, &mut progress)?);
        }
        load_on(Cpu::group(cpu, self.tp), folder, model)
    }

    /// A model of random weights.
    pub(crate) fn synthetic(self, cpu: CpuConfig, model: &ModelConfig, seed: u64) -> Result<Box<dyn Runner>> {
        self.check(cpu, model)?;
        if self.stages > 1 {
            let backends = cpu.split(self.stages).map(Cpu::with).collect();
            return Ok(stages::synthetic(backends, model, seed)?);
        }
        Ok(Box::new(Ranks::synthetic(Cpu::group(cpu, self.tp), model, seed)?))
    }

    fn check(self, cpu: CpuConfig, model: &ModelConfig) -> Result<()> {
        let Self { tp, stages } = self;
        stages::check(model, stages)?;
        Shard::all(model, tp)?;
        if stages > 1 && tp > 1 {
            bail!("stages is {stages} and tp is {tp}: set one of them to 1");
        }
        if cpu.threads < stages {
            bail!("threads is {}: use at least stages, which is {stages}", cpu.threads);
        }
        Ok(())
    }
}

/// Loads a folder's model onto ranks, telling a bar how far that has come.
pub(crate) fn load_on<B: Backend>(
    ranks: Vec<B>,
    folder: &ModelFolder,
    model: &ModelConfig,
) -> Result<Box<dyn Runner>> {
    let mut bar = LoadBar::default();
    let mut progress = |progress| bar.update(progress);
    Ok(Box::new(Ranks::load(ranks, &folder.checkpoint()?, model, &mut progress)?))
}
