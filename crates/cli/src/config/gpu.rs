//! Which GPUs compute, and where their compiled kernels are kept.

use std::collections::HashSet;
use std::env;
use std::path::PathBuf;

use anyhow::{Result, bail};
use windlass_kernels::GpuConfig;

/// The GPUs that the settings `cuda_devices` and `cuda_kernel_cache` name, one for each of `ranks`; the first ones where none are
/// named.
pub(crate) fn gpu_config(
    devices: Option<Vec<usize>>,
    kernel_cache: Option<PathBuf>,
    ranks: usize,
) -> Result<GpuConfig> {
    let devices = devices.unwrap_or_else(|| (0..ranks).collect());
    let mut seen = HashSet::new();
    if let Some(device) = devices.iter().find(|&&device| !seen.insert(device)) {
        bail!("cuda_devices has {device} twice: give each rank a GPU of its own");
    }
    Ok(GpuConfig { devices, kernel_cache: kernel_cache.or_else(default_cache) })
}

/// In the user's cache folder, where there is one.
fn default_cache() -> Option<PathBuf> {
    let folder = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    caches.map(|caches| caches.join("windlass").join("kernels"))
}
