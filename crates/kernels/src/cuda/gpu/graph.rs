//! Work that the driver recorded, to be launched in one piece.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::result::{DriverError, ctx, graph};
use cudarc::driver::sys::{CUgraph, CUgraphExec, CUgraphInstantiate_flags, CUstream};

use super::Context;
use super::driver::ok;

/// A recorded list of work.
pub struct GpuGraph {
    context: Arc<Context>,
    executable: CUgraphExec,
}

// SAFETY: the handle is this value's own, and may be used from any thread that has made the context current.
unsafe impl Send for GpuGraph {}

impl fmt::Debug for GpuGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GpuGraph").finish_non_exhaustive()
    }
}

impl GpuGraph {
    /// What was recorded, ready to run; in the current context.
    pub(super) fn new(context: &Arc<Context>, recorded: CUgraph) -> Result<Self, DriverError> {
        // SAFETY: the graph was just recorded, and nobody else has it. Once it is made executable it is needed no more.
        let executable = unsafe {
            let executable = graph::instantiate(recorded, CUgraphInstantiate_flags(0));
            let _ = graph::destroy(recorded);
            executable?
        };
        Ok(Self { context: Arc::clone(context), executable })
    }

    /// Runs it, in the order of `stream`.
    ///
    /// # Safety
    /// The memory is there that it was recorded with.
    pub(super) unsafe fn launch(&self, stream: CUstream) {
        // SAFETY: the graph is this value's own.
        ok("launch recorded work", unsafe { graph::launch(self.executable, stream) });
    }
}

impl Drop for GpuGraph {
    fn drop(&mut self) {
        // Errors are those of earlier work. A graph that runs is freed once it is done.
        // SAFETY: the context is retained as long as this lives, and nobody else has the graph.
        unsafe {
            let _ = ctx::set_current(self.context.context);
            let _ = graph::exec_destroy(self.executable);
        }
    }
}
