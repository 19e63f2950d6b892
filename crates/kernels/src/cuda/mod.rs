//! The CUDA backend: own kernels, in `cuda/` beside `src/`, on one device and one stream.
//!
//! Activations are f32. Weights, and with them keys and values, are f32 or bf16; products of bf16 go through the matrix units with
//! sums in f32. Nothing is allocated in a tick once launches of its size were seen. What a tick waits for is what the trait
//! returns: changes, logits, tokens.

mod buffer;
mod bytes;
mod constants;
mod device;
mod growing;
mod matrix;
mod operations;
mod plan;
mod product;
mod scratch;
mod source;

#[cfg(feature = "cuda-emulator")]
mod emulator;
mod gpu;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use buffer::{CudaBuffer, CudaCache};
pub use device::{Argument, Device, Grid, Kernel, Memory};
#[cfg(feature = "cuda-emulator")]
pub use emulator::{Emulator, EmulatorError};
pub use gpu::{DeviceInfo, Gpu, Survey, compile};
pub use matrix::CudaMatrix;
use matrix::Values;
use scratch::Scratch;

use crate::cpu::WeightFormat;
use crate::cuda_error::CudaError;
use crate::gpu_config::GpuConfig;

/// Runs on a CUDA device.
#[derive(Debug)]
pub struct Cuda<D: Device> {
    device: D,
    values: Values,
    scratch: Mutex<Scratch<D>>,
}

impl<D: Device> Cuda<D> {
    /// A backend on `device` with weights in `format`.
    pub fn new(device: D, format: WeightFormat) -> Result<Self, CudaError> {
        let values = match format {
            WeightFormat::F32 => Values::F32,
            WeightFormat::Bf16 => Values::Bf16,
            WeightFormat::Int8 => return Err(CudaError::Weights { format }),
        };
        Ok(Self { device, values, scratch: Mutex::default() })
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    fn scratch(&self) -> MutexGuard<'_, Scratch<D>> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cuda<Gpu> {
    /// A backend on the GPU that `config` names.
    pub fn open(config: &GpuConfig, format: WeightFormat) -> Result<Self, CudaError> {
        Self::new(Gpu::open(config)?, format)
    }
}
