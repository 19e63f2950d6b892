//! What GPUs a machine has, and what is installed beside them.

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute};

use super::driver::{self, to};
use super::nccl;
use crate::cuda_error::CudaError;

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its product name.
    pub name: String,
    /// Major and minor compute capability.
    pub capability: (u32, u32),
    /// Memory in all, in bytes.
    pub memory_bytes: u64,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Other devices whose memory it reaches by itself.
    pub peers: Vec<usize>,
}

impl DeviceInfo {
    /// As compilers call it.
    pub fn architecture(&self) -> String {
        let (major, minor) = self.capability;
        format!("sm_{major}{minor}")
    }
}

/// All GPUs, and what is installed beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// The newest CUDA that the driver knows, major and minor.
    pub driver_cuda: (u32, u32),
    /// The devices.
    pub devices: Vec<DeviceInfo>,
    /// Whether the run-time compiler is there.
    pub has_compiler: bool,
    /// Whether NCCL is there.
    pub has_nccl: bool,
}

impl Survey {
    /// Asks the driver.
    pub fn take() -> Result<Self, CudaError> {
        let count = driver::count()?;
        let mut version = 0;
        // SAFETY: the library is there; the version is written to its own variable.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(to("tell its version"))?;
        let version = version.unsigned_abs();
        Ok(Self {
            driver_cuda: (version / 1000, version % 1000 / 10),
            devices: (0..count).map(device).collect::<Result<_, _>>()?,
            // SAFETY: loads a library that only defines functions.
            has_compiler: unsafe { cudarc::nvrtc::sys::is_culib_present() },
            has_nccl: nccl::is_present(),
        })
    }
}

/// One device.
pub(super) fn device(number: usize) -> Result<DeviceInfo, CudaError> {
    use CUdevice_attribute as Attribute;

    let device = driver::device(number)?;
    let attribute = |attribute| {
        // SAFETY: the device was given by the driver.
        let value = unsafe { result::device::get_attribute(device, attribute) };
        value.map(i32::unsigned_abs).map_err(to("describe a device"))
    };
    Ok(DeviceInfo {
        name: result::device::get_name(device).map_err(to("name a device"))?,
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        // SAFETY: as above.
        memory_bytes: unsafe { result::device::total_mem(device) }.map_err(to("tell its memory"))? as u64,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        peers: peers(number, device)?,
    })
}

fn peers(number: usize, device: CUdevice) -> Result<Vec<usize>, CudaError> {
    let mut peers = Vec::new();
    for other in (0..driver::count()?).filter(|&other| other != number) {
        let mut can = 0;
        let peer = driver::device(other)?;
        // SAFETY: both devices were given by the driver; the answer is written to its own variable.
        unsafe { sys::cuDeviceCanAccessPeer(&raw mut can, device, peer) }
            .result()
            .map_err(to("tell what peers it has"))?;
        if can != 0 {
            peers.push(other);
        }
    }
    Ok(peers)
}
