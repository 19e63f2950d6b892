//! Work that the driver recorded, to be launched in one piece.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::result::{DriverError, ctx, graph};
use cudarc::driver::sys::{CUgraph, CUgraphExec, CUgraphInstantiate_flags};

use super::Context;
use super::driver::ok;

/// A recorded list of work.
pub struct GpuGraph {
    /// Before the context, in which it ends.
    place: Place,
    context: Arc<Context>,
}

/// Who has what was recorded.
enum Place {
    /// This graph.
    Own(Executable),
    /// The group, under this number: NCCL cannot leave one of which there is a graph with its gathers.
    Group(usize),
}

/// Recorded work that is ready to run.
pub(super) struct Executable(CUgraphExec);

// SAFETY: the handle is this value's own, and may be used from any thread that has made the context current.
unsafe impl Send for Executable {}

impl fmt::Debug for GpuGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GpuGraph").finish_non_exhaustive()
    }
}

impl GpuGraph {
    /// What was recorded, ready to run; in the current context. Whether all ranks of a group run it.
    pub(super) fn new(
        context: &Arc<Context>,
        recorded: CUgraph,
        is_shared: bool,
    ) -> Result<Self, DriverError> {
        // SAFETY: the graph was just recorded, and nobody else has it. Once it is made executable it is needed no more.
        let executable = unsafe {
            let executable = graph::instantiate(recorded, CUgraphInstantiate_flags(0));
            let _ = graph::destroy(recorded);
            Executable(executable?)
        };
        let place = if is_shared {
            let mut connections = context.connections();
            Place::Group(connections.group.as_mut().expect("a device of a group").keep(executable))
        } else {
            Place::Own(executable)
        };
        Ok(Self { context: Arc::clone(context), place })
    }

    /// Runs it, in the order of its context's stream; that is current.
    ///
    /// # Safety
    /// The memory is there that it was recorded with.
    pub(super) unsafe fn launch(&self) {
        let launch = |executable: &Executable| {
            // SAFETY: the caller vouches for what it does; the stream is that of its context.
            ok("launch recorded work", unsafe { graph::launch(executable.0, self.context.stream) });
        };
        match &self.place {
            Place::Own(executable) => launch(executable),
            Place::Group(number) => {
                let connections = self.context.connections();
                launch(connections.group.as_ref().expect("a device of a group").kept(*number));
            }
        }
    }
}

impl Drop for GpuGraph {
    fn drop(&mut self) {
        // SAFETY: the context is retained as long as this lives. Errors are those of earlier work.
        let _ = unsafe { ctx::set_current(self.context.context) };
        if let (Place::Group(number), Some(group)) = (&self.place, &mut self.context.connections().group) {
            group.forget(*number);
        }
    }
}

impl Drop for Executable {
    /// In its context. A graph that runs is freed once it is done.
    fn drop(&mut self) {
        // SAFETY: nobody else has the graph. Errors are those of earlier work.
        let _ = unsafe { graph::exec_destroy(self.0) };
    }
}
