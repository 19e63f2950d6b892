//! What computes, for commands that compute in this process.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use windlass_kernels::GpuConfig;

use crate::config::gpu_config;

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceKind {
    /// This machine's cores
    Cpu,
    /// A GPU, in a program built with the feature cuda
    Cuda,
}

/// What computes, for commands that compute in this process.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeviceOptions {
    /// What computes
    #[arg(long, value_enum, default_value_t = DeviceKind::Cpu)]
    pub(crate) backend: DeviceKind,
    /// With backend cuda, which GPU, as the driver counts [default: 0]
    #[arg(long, value_name = "N", env = "WINDLASS_CUDA_DEVICE")]
    cuda_device: Option<usize>,
    /// With backend cuda, folder of compiled kernels [default: windlass/kernels in the user's cache folder]
    #[arg(long, value_name = "DIR", env = "WINDLASS_CUDA_KERNEL_CACHE")]
    cuda_kernel_cache: Option<PathBuf>,
}

impl DeviceOptions {
    /// The GPU, if one was asked for, to run as one of `tp` ranks.
    pub(crate) fn gpu(&self, tp: usize) -> Result<Option<GpuConfig>> {
        if self.backend != DeviceKind::Cuda {
            return Ok(None);
        }
        if tp != 1 {
            bail!("tp is {tp}, but backend is cuda, which runs on one GPU: leave tp out");
        }
        Ok(Some(gpu_config(self.cuda_device, self.cuda_kernel_cache.clone())))
    }
}
