//! The fused operations of a tick.
//!
//! [`Backend`] lists them; [`Cpu`] is the fast implementation for this machine's cores, `cuda` (a feature) that for a GPU, and
//! [`Plain`] the twin of both, one obvious loop each, against which they are tested ([`selftest`]). All `unsafe` of the workspace
//! is in this crate. It knows no model: what a layer is, which row belongs to whom and when anything runs is decided above.
//!
//! Every operation is **batch-invariant**: a row's result has the same bits whatever other rows are in the call, on
//! any number of threads, and on any instruction set that gives the same [`Arithmetic`].

mod backend;
mod bytes;
mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod cuda_error;
mod draw;
#[cfg(feature = "test-support")]
mod faulty;
mod gpu_config;
pub mod group;
mod kv;
pub mod mapped;
mod plain;
mod report;
pub mod selftest;
mod weight;

pub use backend::{
    Backend, Commit, LargestOutput, LatentChange, Norm, NormWeights, Rotation, Rows, Stop, Stopped,
};
pub use cpu::{Arithmetic, Cpu, CpuConfig, DrawScratch, Isa, WeightFormat, draw};
pub use cuda_error::CudaError;
pub use draw::{Draw, Draws, LogitChange};
#[cfg(feature = "test-support")]
pub use faulty::Faulty;
pub use gpu_config::GpuConfig;
pub use kv::{BLOCK_POSITIONS, BlockId, KvFormat, KvRow, KvRows, KvShape, KvTable};
pub use plain::Plain;
pub use report::Reported;
pub use weight::{Stored, Weight};
