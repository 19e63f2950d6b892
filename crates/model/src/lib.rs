//! Huginn-family models: configs, checkpoints, efforts, and the computation itself.
//!
//! Knows nothing of scheduling, lanes or the network. A model lives in a [`ModelFolder`] as published: `config.json`,
//! `model.safetensors` or its shards, tokenizer files that are handed on unread. [`Oracle`] is the slow and plain
//! implementation that every other one is tested against.

pub mod checkpoint;
pub mod config;
pub mod depth;
pub mod efforts;
pub mod error;
pub mod exit;
pub mod folder;
#[cfg(feature = "test-support")]
pub mod goldens;
pub mod kv;
pub mod latent;
pub mod network;
pub mod oracle;
pub mod random;
pub mod ranks;
mod reports;
pub mod runner;
pub mod shard;
pub mod split;
pub mod stages;
pub mod synthetic;
pub mod weights;

pub use checkpoint::Checkpoint;
pub use config::ModelConfig;
pub use depth::{AdaptiveDepth, Criterion, Depth, DepthError, DepthPolicy};
pub use efforts::Efforts;
pub use error::{ConfigError, LoadError};
pub use exit::ExitState;
pub use folder::ModelFolder;
pub use kv::KvPolicy;
pub use network::{Capacity, Launch, Network, Workspace};
pub use oracle::{Oracle, OracleRequest, OracleToken};
pub use ranks::Ranks;
pub use runner::{Busy, Found, Local, Part, Runner, Wanted};
pub use shard::{RanksError, Shard};
pub use split::Split;
pub use stages::Ring;
pub use weights::{LayerWeights, LoadProgress, Weights};
