//! What computes, for commands that compute in this process.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use windlass_kernels::GpuConfig;
use windlass_worker::WorkerError;

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
    /// With backend cuda, which GPUs, as the driver counts: one for each rank of each stage, stage by stage [default: the first]
    #[arg(long, value_name = "N,…", value_delimiter = ',', env = "WINDLASS_CUDA_DEVICES")]
    cuda_devices: Option<Vec<usize>>,
    /// With backend cuda, folder of compiled kernels [default: windlass/kernels in the user's cache folder]
    #[arg(long, value_name = "DIR", env = "WINDLASS_CUDA_KERNEL_CACHE")]
    cuda_kernel_cache: Option<PathBuf>,
}

impl DeviceOptions {
    /// How many GPUs are named.
    pub(crate) fn named(&self) -> usize {
        self.cuda_devices.as_ref().map_or(0, Vec::len)
    }

    /// The GPUs, if they were asked for, one for each of `ranks`.
    pub(crate) fn gpus(&self, ranks: usize) -> Result<Option<GpuConfig>> {
        if self.backend != DeviceKind::Cuda {
            return Ok(None);
        }
        let gpus = gpu_config(self.cuda_devices.clone(), self.cuda_kernel_cache.clone(), ranks)?;
        let devices = gpus.devices.len();
        if devices != ranks {
            return Err(WorkerError::Devices { devices, ranks }.into());
        }
        Ok(Some(gpus))
    }
}
