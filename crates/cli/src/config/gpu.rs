//! Which GPU computes, and where its compiled kernels are kept.

use std::env;
use std::path::PathBuf;

use windlass_kernels::GpuConfig;

/// The GPU that the settings `cuda_device` and `cuda_kernel_cache` name.
pub(crate) fn gpu_config(device: Option<usize>, kernel_cache: Option<PathBuf>) -> GpuConfig {
    GpuConfig { device: device.unwrap_or(0), kernel_cache: kernel_cache.or_else(default_cache) }
}

/// In the user's cache folder, where there is one.
fn default_cache() -> Option<PathBuf> {
    let folder = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    caches.map(|caches| caches.join("windlass").join("kernels"))
}
