//! The CUDA backend: own kernels, in `cuda/` beside `src/`, on one device and one stream, alone or as one rank of a group.
//!
//! Activations are f32. Weights, and with them keys and values, are f32 or bf16; products of bf16 go through the matrix units with
//! sums in f32. Nothing is allocated in a tick once launches of its size were seen. Operations are begun when their calls return;
//! what they have to say (changes, logits, tokens) is waited for when it is received.

mod buffer;
mod constants;
mod device;
mod growing;
mod matrix;
mod operations;
mod plan;
mod product;
mod queue;
mod scratch;
mod source;
mod tables;

#[cfg(feature = "cuda-emulator")]
mod emulator;
mod gpu;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

pub use buffer::{CudaBuffer, CudaCache, CudaParcel, CudaReport};
pub use device::{Argument, Device, Grid, Kernel, Launch, Memory, Work};
#[cfg(feature = "cuda-emulator")]
pub use emulator::{Emulator, EmulatorError, EmulatorLink};
pub use gpu::{DeviceInfo, Gpu, GroupId, Survey, compile, prepare};
pub use matrix::CudaMatrix;
use matrix::Values;
pub use queue::Kept;
use queue::Queue;
use scratch::Scratch;

use crate::cpu::WeightFormat;
use crate::cuda_error::CudaError;
use crate::gpu_config::GpuConfig;
use crate::group::Loss;

/// Runs on a CUDA device.
#[derive(Debug)]
pub struct Cuda<D: Device> {
    device: Queue<D>,
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
        Ok(Self { device: Queue::new(device), values, scratch: Mutex::default() })
    }

    /// The device.
    pub fn device(&self) -> &D {
        self.device.device()
    }

    /// The same as if it had done nothing yet: ranks of a group begin alike.
    pub fn anew(self) -> Self {
        Self { scratch: Mutex::default(), ..self }
    }

    fn scratch(&self) -> MutexGuard<'_, Scratch<D>> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cuda<Gpu> {
    /// Backends on the GPUs that `config` names: of each stage `ranks` of them, which are one group.
    pub fn open(config: &GpuConfig, ranks: usize, format: WeightFormat) -> Result<Vec<Vec<Self>>, CudaError> {
        let stage = |devices: &[usize]| {
            let gpus = devices.iter().map(|&device| Self::new(Gpu::open(device, config)?, format));
            let gpus = gpus.collect::<Result<Vec<_>, _>>()?;
            if ranks == 1 { Ok(gpus) } else { Self::group(gpus) }
        };
        config.devices.chunks(ranks).map(stage).collect()
    }

    /// All ranks of a group in this process, by rank; one alone can be a group as well.
    pub fn group(ranks: Vec<Self>) -> Result<Vec<Self>, CudaError> {
        let gpus: Vec<_> = ranks.iter().map(Self::device).collect();
        Gpu::join(&gpus, &GroupId::new()?, (ranks.len(), 0), &Loss::default())?;
        Ok(ranks.into_iter().map(Self::anew).collect())
    }

    /// Devices of this process that are linked as those of several are: each to the next, and the last to the first. There are at least
    /// two.
    pub fn ring(devices: Vec<Self>) -> Result<Vec<Self>, CudaError> {
        let (ids, loss) =
            (devices.iter().map(|_| GroupId::new()).collect::<Result<Vec<_>, _>>()?, Loss::default());
        let link = |(at, device): (usize, &Self)| {
            device.device().link([&ids[(at + ids.len() - 1) % ids.len()], &ids[at]], &loss)
        };
        thread::scope(|scope| {
            let linking = devices.iter().enumerate().map(|device| scope.spawn(move || link(device)));
            let linking: Vec<_> = linking.collect();
            linking.into_iter().try_for_each(|linked| linked.join().expect("a link that opens"))
        })?;
        Ok(devices)
    }

    /// The same as one rank of a group of `ranks`, which may be in other processes. Waits until all ranks have come, or fails once
    /// told of a loss.
    pub fn in_group(
        self,
        id: &GroupId,
        (ranks, rank): (usize, usize),
        loss: &Loss,
    ) -> Result<Self, CudaError> {
        Gpu::join(&[self.device()], id, (ranks, rank), loss)?;
        Ok(self.anew())
    }

    /// The same linked to devices of other processes, one of the stage before and one of the next, by the ids of both links. Waits
    /// until they have come, or fails once told of a loss.
    pub fn linked(self, ids: [&GroupId; 2], loss: &Loss) -> Result<Self, CudaError> {
        self.device().link(ids, loss)?;
        Ok(self)
    }
}
