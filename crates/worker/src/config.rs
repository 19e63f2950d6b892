//! What one worker serves, and within which limits.

use std::thread::available_parallelism;
use std::time::Duration;

use windlass_engine::{EngineConfig, EngineConfigError};
use windlass_kernels::WeightFormat;
use windlass_model::{LoadError, ModelFolder, stages};
use windlass_transport::ServerTlsFiles;

use crate::error::WorkerError;
use crate::memory;
use crate::simulated::SimulatedCost;

/// What computes a worker's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorkerBackend {
    /// This machine's cores.
    #[default]
    Cpu,
    /// Nothing: answers are drawn, and take as long as this says.
    Simulated(SimulatedCost),
}

/// What one worker serves, and within which limits. [`WorkerConfig::new`] gives defaults; every field may be changed.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The model.
    pub model: ModelFolder,
    /// What computes.
    pub backend: WorkerBackend,
    /// Limits of the engine.
    pub engine: EngineConfig,
    /// Threads of the CPU backend, which its stages share.
    pub threads: usize,
    /// Parts that the model is cut into, each with threads of its own; 1 leaves it whole. Changes when answers come, never what
    /// they are.
    pub stages: usize,
    /// How the CPU backend stores weights. Must be the same for all workers of one model.
    pub weights: WeightFormat,
    /// Seed of the initial latents of requests that bring none. Must be the same for all workers of one model.
    pub latent_seed: u64,
    /// Commands that wait for the engine's thread between two ticks.
    pub inbox: usize,
    /// How long running generations may go on once the worker drains and nothing else was said; at the end they are handed
    /// over.
    pub drain_deadline: Duration,
    /// TLS of the worker's service; without it that speaks plain text.
    pub tls: Option<ServerTlsFiles>,
    /// How long the engine may owe an answer before its coordinators are told that it is stuck.
    pub stuck_after: Duration,
}

impl WorkerConfig {
    /// Defaults for `model`, with one thread per core.
    pub fn new(model: ModelFolder) -> Result<Self, WorkerError> {
        let config = model.config()?;
        let engine = EngineConfig::new(&config, model.efforts(&config)?.max_depth);
        Ok(Self {
            model,
            backend: WorkerBackend::default(),
            engine,
            weights: WeightFormat::default(),
            threads: available_parallelism().map_or(1, usize::from),
            stages: 1,
            latent_seed: 0,
            inbox: 1024,
            drain_deadline: Duration::from_secs(30),
            tls: None,
            stuck_after: Duration::from_secs(10),
        })
    }

    /// Checks every limit, for this model and this machine.
    pub fn validate(&self) -> Result<(), WorkerError> {
        self.validate_limits()?;
        if self.backend != WorkerBackend::Cpu {
            return Ok(());
        }
        let model = self.model.config()?;
        stages::check(&model, self.stages).map_err(LoadError::from)?;
        let (threads, stages) = (self.threads, self.stages);
        if threads < stages {
            return Err(WorkerError::Threads { threads, stages });
        }
        let needed = self.engine.capacity(&model).bytes(&model);
        memory::check(needed)
    }

    /// Checks every limit but that on memory.
    pub(crate) fn validate_limits(&self) -> Result<(), WorkerError> {
        let stuck_after_ms = self.stuck_after.as_millis() as usize;
        for (field, count) in
            [("threads", self.threads), ("inbox", self.inbox), ("stuck_after_ms", stuck_after_ms)]
        {
            if count == 0 {
                return Err(EngineConfigError::Zero { field }.into());
            }
        }
        let model = self.model.config()?;
        self.engine.validate(&model)?;
        let max_depth = self.engine.max_depth;
        let efforts = self.model.efforts(&model)?;
        match efforts.by_name.iter().find(|(_, policy)| policy.max() > max_depth) {
            Some((effort, policy)) => {
                Err(WorkerError::MaxDepth { max_depth, effort: effort.clone(), depth: policy.max() })
            }
            None => Ok(()),
        }
    }
}
