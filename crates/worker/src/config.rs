//! What one worker serves, and within which limits.

use std::thread::available_parallelism;
use std::time::Duration;

use windlass_engine::{EngineConfig, EngineConfigError};
use windlass_kernels::{GpuConfig, WeightFormat};
use windlass_model::{LoadError, ModelConfig, ModelFolder, Shard, stages};
use windlass_transport::ServerTlsFiles;

use crate::error::WorkerError;
use crate::memory;
use crate::simulated::SimulatedCost;

/// What computes a worker's answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WorkerBackend {
    /// This machine's cores.
    #[default]
    Cpu,
    /// A GPU.
    Cuda(GpuConfig),
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
    /// Ranks that the model is split over: each holds a part of the heads, of the feed-forward and of the head. Must be the
    /// same for all workers of one model.
    pub tp: usize,
    /// How long a rank may be silent before it is lost, where the other ranks are processes of their own; none where all ranks
    /// are in this process.
    pub rank_timeout: Option<Duration>,
    /// Threads of the CPU backend; ranks in one process and stages share them.
    pub threads: usize,
    /// Parts that the model is cut into, each with threads of its own; 1 leaves it whole. Changes when answers come, never what
    /// they are.
    pub stages: usize,
    /// How weights are stored. Must be the same for all workers of one model.
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
            tp: 1,
            rank_timeout: None,
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
        let model = self.model.config()?;
        let (threads, stages) = (self.threads, self.stages);
        stages::check(&model, stages).map_err(LoadError::from)?;
        match &self.backend {
            WorkerBackend::Cpu => {}
            // What fits is known once the GPUs are open.
            WorkerBackend::Cuda(gpus) => {
                let ranks = if self.rank_timeout.is_some() { 1 } else { self.tp * stages };
                let devices = gpus.devices.len();
                return if devices == ranks { Ok(()) } else { Err(WorkerError::Devices { devices, ranks }) };
            }
            WorkerBackend::Simulated(_) if stages > 1 => return Err(WorkerError::SimulatedStages { stages }),
            WorkerBackend::Simulated(_) => return Ok(()),
        }
        if self.rank_timeout.is_some() && stages > 1 {
            // Each process has threads and memory of its own: how much is known once the model is cut.
            return Ok(());
        }
        if threads < stages {
            return Err(WorkerError::Threads { threads, stages });
        }
        memory::check(self.workspace_bytes(&model)?)
    }

    /// Bytes of what the ranks in this process write.
    fn workspace_bytes(&self, model: &ModelConfig) -> Result<u64, WorkerError> {
        let kv = self.weights.kv();
        let capacity = self.engine.capacity(model, kv);
        let mut shards = Shard::all(model, self.tp).map_err(LoadError::from)?;
        if self.rank_timeout.is_some() {
            shards.truncate(1);
        }
        Ok(shards.iter().fold(0, |sum: u64, shard| sum.saturating_add(capacity.bytes(model, shard, kv))))
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
        self.engine.validate(&model, self.weights.kv())?;
        Shard::all(&model, self.tp).map_err(LoadError::from)?;
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
