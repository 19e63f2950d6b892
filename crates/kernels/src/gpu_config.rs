//! Which GPU computes.

use std::path::PathBuf;

/// Which GPU, and where its compiled kernels are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GpuConfig {
    /// As the driver counts.
    pub device: usize,
    /// Folder of compiled kernels; without one they are compiled at every start.
    pub kernel_cache: Option<PathBuf>,
}
