//! How a model is split over the devices of this process.

use anyhow::{Result, bail};
use windlass_kernels::{Backend, Cpu, CpuConfig};
use windlass_model::{ModelConfig, ModelFolder, Ranks, Runner, Shard, stages};

use crate::load_bar::LoadBar;

/// How many parts of each kind; of one of them only one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Split {
    /// Ranks, each with a part of every layer.
    pub(crate) tp: usize,
    /// Stages, each with a part of the layers.
    pub(crate) stages: usize,
}

impl Split {
    /// CPU backends for the parts of a model, which share the threads.
    pub(crate) fn cpus(self, cpu: CpuConfig, model: &ModelConfig) -> Result<Vec<Cpu>> {
        let Self { tp, stages } = self;
        stages::check(model, stages)?;
        Shard::all(model, tp)?;
        if stages > 1 && tp > 1 {
            bail!("stages is {stages} and tp is {tp}: set one of them to 1");
        }
        if cpu.threads < stages {
            bail!("threads is {}: use at least stages, which is {stages}", cpu.threads);
        }
        Ok(if stages > 1 { cpu.split(stages).map(Cpu::with).collect() } else { Cpu::group(cpu, tp) })
    }

    /// Loads a folder's model onto a backend for each part, telling a bar how far that has come.
    pub(crate) fn load<B: Backend>(
        self,
        backends: Vec<B>,
        folder: &ModelFolder,
        model: &ModelConfig,
    ) -> Result<Box<dyn Runner>> {
        let mut bar = LoadBar::default();
        let mut progress = |progress| bar.update(progress);
        let checkpoint = folder.checkpoint()?;
        if self.stages > 1 {
            return Ok(stages::load(backends, &checkpoint, model, &mut progress)?);
        }
        Ok(Box::new(Ranks::load(backends, &checkpoint, model, &mut progress)?))
    }

    /// A model of random weights on a backend for each part.
    pub(crate) fn synthetic<B: Backend>(
        self,
        backends: Vec<B>,
        model: &ModelConfig,
        seed: u64,
    ) -> Result<Box<dyn Runner>> {
        if self.stages > 1 {
            return Ok(stages::synthetic(backends, model, seed)?);
        }
        Ok(Box::new(Ranks::synthetic(backends, model, seed)?))
    }
}
