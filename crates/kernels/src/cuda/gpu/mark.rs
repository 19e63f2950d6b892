//! Moments in the order of a stream.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::result::{DriverError, ctx, event};
use cudarc::driver::sys::{CUevent, CUevent_flags};

use super::Context;

/// An event that tells when it was reached.
pub struct GpuMark {
    context: Arc<Context>,
    pub(super) event: CUevent,
    /// What the device has read by then, of all that is put for it.
    pub(super) put: u64,
}

// SAFETY: the event is this value's own, and may be used from any thread that has made the context current.
unsafe impl Send for GpuMark {}

impl fmt::Debug for GpuMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GpuMark").finish_non_exhaustive()
    }
}

impl GpuMark {
    /// One that is nowhere yet; in the current context.
    pub(super) fn new(context: &Arc<Context>) -> Result<Self, DriverError> {
        let event = event::create(CUevent_flags::CU_EVENT_DEFAULT)?;
        Ok(Self { context: Arc::clone(context), event, put: 0 })
    }
}

impl Drop for GpuMark {
    fn drop(&mut self) {
        // Errors are those of earlier work. An event that was not reached yet is freed once it is.
        // SAFETY: the context is retained as long as this lives, and nobody else has the event.
        unsafe {
            let _ = ctx::set_current(self.context.context);
            let _ = event::destroy(self.event);
        }
    }
}
