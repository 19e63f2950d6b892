//! Why there is no CUDA backend.

use std::path::PathBuf;

use crate::cpu::WeightFormat;

/// Why there is no CUDA backend.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// This program was built without it.
    #[error(
        "this program was built without CUDA: build it with `cargo build --release --features cuda`, or use backend cpu"
    )]
    NotBuilt,
    /// There is no driver.
    #[error(
        "the NVIDIA driver's library, {file}, cannot be loaded: install the driver (in a container, start it with access \
         to the GPU), or use backend cpu"
    )]
    NoDriver {
        /// The file that was looked for.
        file: &'static str,
    },
    /// There is no such device.
    #[error("cuda_devices has {device} and the driver knows {count} devices: use numbers below that")]
    NoDevice {
        /// The one asked for.
        device: usize,
        /// How many there are.
        count: usize,
    },
    /// The device cannot run the kernels.
    #[error(
        "device {device} of cuda_devices is {name} of compute capability {major}.{minor}: use one of at least 8.0"
    )]
    TooOld {
        /// The one asked for.
        device: usize,
        /// What it is.
        name: String,
        /// Of its capability.
        major: u32,
        /// Of its capability.
        minor: u32,
    },
    /// The kernels are in no cache and there is no compiler.
    #[error(
        "the kernels are not compiled for {architecture} yet and the run-time compiler's library, {file}, cannot be loaded: \
         install NVRTC of CUDA 13 (part of the toolkit; from PyPI nvidia-cuda-nvrtc) where the dynamic \
         loader finds it, or copy {cached} from a machine that has it"
    )]
    NoCompiler {
        /// What they are to be compiled for.
        architecture: String,
        /// The file that was looked for.
        file: &'static str,
        /// Where compiled kernels were looked for.
        cached: PathBuf,
    },
    /// The compiler refuses the kernels.
    #[error("the kernels cannot be compiled for {architecture}: {message}")]
    Compile {
        /// What they are to be compiled for.
        architecture: String,
        /// What the compiler says.
        message: String,
    },
    /// The driver refuses something.
    #[error("the NVIDIA driver fails to {what}: {message}: see that nvidia-smi runs, or use backend cpu")]
    Driver {
        /// What was asked for.
        what: &'static str,
        /// What it says.
        message: String,
    },
    /// Several devices cannot compute together.
    #[error(
        "NCCL's library, {file}, cannot be loaded: install NCCL 2 (the package libnccl2; from PyPI nvidia-nccl-cu13) where the \
         dynamic loader finds it, or leave tp and tp_listen out: stages in one process need no NCCL"
    )]
    NoNccl {
        /// The file that was looked for.
        file: &'static str,
    },
    /// NCCL refuses something.
    #[error("NCCL fails to {what}: {message}: run with NCCL_DEBUG=WARN to see why")]
    Nccl {
        /// What was asked for.
        what: &'static str,
        /// What it says.
        message: String,
    },
    /// Devices that were to compute together did not come together.
    #[error("a rank was lost before its group had come together: start all ranks anew")]
    GroupLost,
    /// The format has no kernels.
    #[error("weights is {format}: with backend cuda use f32 or bf16")]
    Weights {
        /// The format.
        format: WeightFormat,
    },
}
