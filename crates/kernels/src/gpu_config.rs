//! Which GPUs compute.

use std::path::PathBuf;

/// Which GPUs, and where their compiled kernels are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GpuConfig {
    /// As the driver counts: one for each rank of each stage, stage by stage.
    pub devices: Vec<usize>,
    /// Folder of compiled kernels; without one they are compiled at every start.
    pub kernel_cache: Option<PathBuf>,
}
