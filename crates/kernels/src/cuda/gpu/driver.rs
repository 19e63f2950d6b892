//! The driver's library: whether it is there, and what its errors become.

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice};

use crate::cuda_error::CudaError;

/// What the loader is asked for.
pub(super) const FILE: &str = "libcuda.so.1";

/// Names an error by what was asked for.
pub(super) fn to(what: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |error| CudaError::Driver { what, message: error.to_string() }
}

/// The result of a call that only fails where the device is broken or out of memory.
///
/// # Panics
/// If it failed.
pub(super) fn ok<T>(what: &str, result: Result<T, DriverError>) -> T {
    result.unwrap_or_else(|error| panic!("the GPU fails to {what}: {error}"))
}

/// Makes the driver ready. To be called before anything else of it.
pub(super) fn start() -> Result<(), CudaError> {
    // The bindings panic where there is no library.
    // SAFETY: loads the library, whose initialisers the system's own loader runs for every CUDA program.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDriver { file: FILE });
    }
    result::init().map_err(to("start"))
}

/// How many devices there are.
pub(super) fn count() -> Result<usize, CudaError> {
    start()?;
    let count = result::device::get_count().map_err(to("count devices"))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// A device, if there is one of that number.
pub(super) fn device(number: usize) -> Result<CUdevice, CudaError> {
    let count = count()?;
    if number >= count {
        return Err(CudaError::NoDevice { device: number, count });
    }
    result::device::get(number as i32).map_err(to("find a device"))
}
