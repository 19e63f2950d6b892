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

/// Has the driver give every stream a queue of its own, as long as there are few: else what waits in one may hold up another. The driver
/// looks once, and at the environment alone, so this is for the beginning of a program; where others run already, or the user has said
/// it, nothing is changed.
pub fn prepare() {
    const CONNECTIONS: &str = "CUDA_DEVICE_MAX_CONNECTIONS";
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads == 1 && std::env::var_os(CONNECTIONS).is_none() {
        // SAFETY: nobody else reads or writes the environment: there is one thread.
        unsafe { std::env::set_var(CONNECTIONS, "32") }
    }
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
