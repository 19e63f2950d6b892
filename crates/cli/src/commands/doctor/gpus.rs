//! The GPUs of this machine.

use windlass_kernels::CudaError;

use super::report::Gpus;

/// What the driver says, or why there is nobody to ask.
#[cfg(feature = "cuda")]
pub(super) fn survey() -> (Option<Gpus>, Option<CudaError>) {
    use super::report::GpuReport;
    use windlass_kernels::cuda::{DeviceInfo, Survey};

    let device = |device: DeviceInfo| GpuReport {
        architecture: device.architecture(),
        name: device.name,
        memory_bytes: device.memory_bytes,
        multiprocessors: device.multiprocessors,
        peers: device.peers,
    };
    match Survey::take() {
        Ok(Survey { driver_cuda: (major, minor), devices, has_compiler, has_nccl }) => {
            let devices = devices.into_iter().map(device).collect();
            let driver_cuda = format!("{major}.{minor}");
            (Some(Gpus { driver_cuda, has_compiler, has_nccl, devices }), None)
        }
        Err(error) => (None, Some(error)),
    }
}

/// What the driver says, or why there is nobody to ask.
#[cfg(not(feature = "cuda"))]
pub(super) fn survey() -> (Option<Gpus>, Option<CudaError>) {
    (None, Some(CudaError::NotBuilt))
}
