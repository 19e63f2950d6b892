//! Why a worker cannot start or ended early.

use std::io;

use windlass_engine::EngineConfigError;
use windlass_kernels::CudaError;
use windlass_model::{Depth, LoadError};

use crate::device_plan::DeviceShortage;

/// Why a worker cannot start or ended early.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The limits ask for more than the machine has.
    #[error(
        "kv_bytes, max_lanes, max_rows and prefill_positions need {needed} bytes and this machine has {total}: lower them"
    )]
    Memory {
        /// What they ask for.
        needed: u64,
        /// What there is.
        total: u64,
    },
    /// The model and the limits ask for more than a GPU has.
    #[error(
        "the model, kv_bytes, max_lanes, max_rows and prefill_positions are too much: {0}: lower them, set weights to bf16, or \
         share the model among more GPUs with tp or stages"
    )]
    DeviceMemory(#[from] DeviceShortage),
    /// Ranks and GPUs do not pair up.
    #[error(
        "cuda_devices names {devices} GPUs and this process has {ranks} ranks (tp × stages, 1 with tp_listen): name one for each"
    )]
    Devices {
        /// How many are named.
        devices: usize,
        /// How many there must be.
        ranks: usize,
    },
    /// There is no CUDA backend.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] LoadError),
    /// What computes nothing has no stages.
    #[error("stages is {stages}, but backend is simulated, which computes nothing: leave stages out")]
    SimulatedStages {
        /// The setting.
        stages: usize,
    },
    /// Each stage computes on a thread of its own.
    #[error("threads is {threads}: use at least stages, which is {stages}")]
    Threads {
        /// The setting.
        threads: usize,
        /// How many stages there are.
        stages: usize,
    },
    /// A limit makes no sense.
    #[error(transparent)]
    Limits(#[from] EngineConfigError),
    /// The depth limit shuts out one of the model's own efforts.
    #[error("max_depth {max_depth} is less than the model's effort '{effort}' needs: use at least {depth}")]
    MaxDepth {
        /// The setting.
        max_depth: Depth,
        /// The effort.
        effort: String,
        /// Its deepest iteration.
        depth: Depth,
    },
    /// The folder has a chat template in a file of its own, but no valid tokenizer config to go with it.
    #[error("tokenizer_config.json cannot take in chat_template.jinja: {reason}")]
    TokenizerConfig {
        /// What is wrong with one of them.
        reason: String,
    },
    /// A certificate, key or authority cannot be used.
    #[error(transparent)]
    Tls(#[from] windlass_transport::TlsError),
    /// The system gave no thread.
    #[error("the engine's thread cannot be started: {0}")]
    Thread(io::Error),
    /// A rank of the group was lost before the worker served.
    #[error("the group has not formed: {reason}")]
    RankLost {
        /// Which rank, and why.
        reason: String,
    },
    /// The engine panicked; the log has its message.
    #[error("the engine has stopped while it was needed: see the log")]
    EngineStopped,
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Serve(#[from] tonic::transport::Error),
}
