//! Host memory that the device copies to by itself, and how one hears that it has.

use std::fmt;
use std::mem;
use std::sync::Arc;

use cudarc::driver::result::{DriverError, ctx, event, free_host, malloc_host};
use cudarc::driver::sys::{CUevent, CUevent_flags};

use super::Context;
use super::driver::ok;

/// Host memory that was made for a GPU's copies.
pub struct GpuLanding {
    context: Arc<Context>,
    start: *mut u8,
    capacity: usize,
    /// What is on its way.
    bytes: usize,
    /// Recorded behind the copy.
    pub(super) arrival: CUevent,
    /// How much had been put for the device to read by then.
    pub(super) put: u64,
    /// What was too small, in all less than there is now. Freeing it may wait for other devices, of which one may wait for this one's
    /// part of a sum.
    outgrown: Vec<Self>,
}

// SAFETY: memory and event are this value's own, and may be used from any thread that has made the context current.
unsafe impl Send for GpuLanding {}

impl fmt::Debug for GpuLanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GpuLanding").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl GpuLanding {
    /// Room for `capacity` bytes, in the current context.
    pub(super) fn new(context: &Arc<Context>, capacity: usize) -> Result<Self, DriverError> {
        // The driver gives no memory of no length.
        let capacity = capacity.max(1);
        let arrival = event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
        // SAFETY: what is not initialised is set to zero below, before anybody reads it.
        let start = unsafe { malloc_host(capacity, 0) }?.cast::<u8>();
        // SAFETY: the memory has as many bytes.
        unsafe { start.write_bytes(0, capacity) };
        Ok(Self {
            context: Arc::clone(context),
            start,
            capacity,
            bytes: 0,
            arrival,
            put: 0,
            outgrown: Vec::new(),
        })
    }

    /// Makes room for so many bytes, which will be on their way. What was on its way before has arrived.
    pub(super) fn begin(&mut self, bytes: usize) {
        if self.capacity < bytes {
            let larger = ok("pin memory", Self::new(&self.context, bytes.next_power_of_two()));
            let outgrown = mem::replace(self, larger);
            self.outgrown.push(outgrown);
        }
        self.bytes = bytes;
    }

    /// What is on its way. Nobody reads or writes it before it has arrived.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the memory has as many bytes, which are initialised and this value's own.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) }
    }
}

impl Drop for GpuLanding {
    fn drop(&mut self) {
        // SAFETY: the context is retained as long as this lives.
        let _ = unsafe { ctx::set_current(self.context.context) };
        // Errors are those of earlier work.
        let _ = self.context.finish();
        // SAFETY: the stream was waited for, so nothing is on its way; both were made by `new`, and nobody else has them.
        unsafe {
            let _ = event::destroy(self.arrival);
            let _: Result<(), DriverError> = free_host(self.start.cast());
        }
    }
}
