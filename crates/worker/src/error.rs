//! Why a worker cannot start or ended early.

use std::io;

use windlass_engine::EngineConfigError;
use windlass_kernels::CudaError;
use windlass_model::{Depth, LoadError};

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
    /// The model and the limits ask for more than the GPU has.
    #[error(
        "the model, kv_bytes, max_lanes, max_rows and prefill_positions need {needed} bytes and {free} are free on the GPU: lower \
         them, or set weights to bf16"
    )]
    DeviceMemory {
        /// What they ask for.
        needed: u64,
        /// What there is.
        free: u64,
    },
    /// There is no CUDA backend.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] LoadError),
    /// Stages are threads of the CPU backend.
    #[error("stages is {stages}, which takes backend cpu: set it to 1")]
    StagesOnCpuAlone {
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
