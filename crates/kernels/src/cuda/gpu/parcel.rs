//! Memory of one device that another one reads by itself, or that goes to another process, and how each hears that the other is done with
//! it.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::result::{DriverError, ctx, event, memcpy_dtod_async, memcpy_peer_async, stream};
use cudarc::driver::sys::{CUevent, CUevent_flags, CUevent_wait_flags, CUstream, cuCtxEnablePeerAccess};

use super::driver::ok;
use super::link::Link;
use super::{Context, GpuMemory};
use crate::cuda::device::Memory;

/// Memory on its way from one GPU to another. Neither waits on the host: streams wait for each other's events.
pub struct GpuParcel {
    memory: GpuMemory,
    /// What was put there is there.
    arrival: Signal,
    /// What was put there has been taken; none if nothing ever was.
    taken: Option<Signal>,
}

/// An event of one device for which another waits, or another stream.
struct Signal {
    context: Arc<Context>,
    event: CUevent,
}

// SAFETY: the event is this value's own, and may be used from any thread that has made a context current.
unsafe impl Send for Signal {}

impl fmt::Debug for GpuParcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GpuParcel").field("memory", &self.memory).finish_non_exhaustive()
    }
}

impl GpuParcel {
    /// One that holds nothing, in memory of a device whose context is current.
    pub(super) fn new(context: &Arc<Context>, memory: GpuMemory) -> Self {
        let arrival = Signal::new(context);
        // What is received must come behind the clearing of new memory.
        arrival.give(context.stream);
        Self { memory, arrival, taken: None }
    }

    /// Has the device of `context`, which is current and where this is from, copy `bytes` from this address to it.
    pub(super) fn put(&mut self, context: &Arc<Context>, from: u64, bytes: usize) {
        assert!(Arc::ptr_eq(context, &self.arrival.context), "a parcel is from one device");
        assert!(bytes <= self.memory.bytes(), "{bytes} bytes to a parcel of {}", self.memory.bytes());
        let to = self.memory.address();
        if let Some(taken) = &self.taken {
            taken.hold_back(context.stream);
        }
        // SAFETY: both have as many bytes, of this device.
        ok("copy within the device", unsafe { memcpy_dtod_async(to, from, bytes, context.stream) });
        self.arrival.give(context.stream);
    }

    /// Has `link`, of the context that this is of, send `bytes` of what was put here to another process.
    pub(super) fn send(&mut self, link: &Link, bytes: usize) {
        let Self { memory, arrival, taken } = self;
        assert!(bytes <= memory.bytes(), "{bytes} bytes of a parcel of {}", memory.bytes());
        let taken = taken.get_or_insert_with(|| Signal::new(&arrival.context));
        arrival.hold_back(link.stream());
        // SAFETY: there are as many bytes.
        unsafe { link.send(memory.address(), bytes) }
        taken.give(link.stream());
    }

    /// Has `link`, of the context that this is of, put the next `bytes` here that another process sends.
    pub(super) fn receive(&mut self, link: &Link, bytes: usize) {
        let Self { memory, arrival, taken } = self;
        assert!(bytes <= memory.bytes(), "{bytes} bytes to a parcel of {}", memory.bytes());
        taken.as_ref().unwrap_or(arrival).hold_back(link.stream());
        // SAFETY: there are as many bytes. They are taken before the memory is freed, or the link has ended.
        unsafe { link.receive(memory.address(), bytes) }
        arrival.give(link.stream());
    }

    /// Has another device, that of `context`, which is current, copy `bytes` of what was put here to this address.
    pub(super) fn take(&mut self, context: &Arc<Context>, bytes: usize, to: u64) {
        assert!(bytes <= self.memory.bytes(), "{bytes} bytes of a parcel of {}", self.memory.bytes());
        let Self { memory, arrival, taken } = self;
        let taken = taken.get_or_insert_with(|| {
            reach(context, &arrival.context);
            Signal::new(context)
        });
        assert!(Arc::ptr_eq(context, &taken.context), "a parcel is for one device");
        arrival.hold_back(context.stream);
        let (from, from_context) = (memory.address(), arrival.context.context);
        // SAFETY: both have as many bytes, each of its context's device.
        let copied = unsafe {
            if context.context == from_context {
                memcpy_dtod_async(to, from, bytes, context.stream)
            } else {
                memcpy_peer_async(context.context, to, from_context, from, bytes, context.stream)
            }
        };
        ok("copy from another device", copied);
        taken.give(context.stream);
    }
}

impl Drop for GpuParcel {
    fn drop(&mut self) {
        if let Some(Signal { context, event }) = &self.taken {
            // The memory is freed after this. Errors are those of earlier work.
            // SAFETY: the context is retained as long as this lives; the event was recorded on a stream of it.
            unsafe {
                let _: Result<(), DriverError> = ctx::set_current(context.context);
                if context.reach(*event).is_err() {
                    // It has left a group that is lost, and goes on without.
                    let _ = context.reach(*event);
                }
            }
        }
    }
}

impl Signal {
    /// One that was not given yet; in its context, which is current.
    fn new(context: &Arc<Context>) -> Self {
        let event = ok("make an event", event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING));
        Self { context: Arc::clone(context), event }
    }

    /// Gives it when a stream of its context, which is current, has done everything asked for before.
    fn give(&self, stream: CUstream) {
        // SAFETY: event and stream are of one context.
        ok("note a moment", unsafe { event::record(self.event, stream) });
    }

    /// Has a stream of the current context do nothing more before it was given.
    fn hold_back(&self, stream: CUstream) {
        let flags = CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: the event lives, and a stream may wait for those of other devices.
        ok("wait for another device", unsafe { stream::wait_event(stream, self.event, flags) });
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        // Errors are those of earlier work. An event that is still waited for is freed once it is reached.
        // SAFETY: the context is retained as long as this lives, and nobody else has the event.
        unsafe {
            let _: Result<(), DriverError> = ctx::set_current(self.context.context);
            let _: Result<(), DriverError> = event::destroy(self.event);
        }
    }
}

/// Lets the device of `context`, which is current, read the other's memory by itself, if it can; else the driver copies by the host.
fn reach(context: &Context, other: &Context) {
    if context.device != other.device {
        // That it was done before, or cannot be, is an error as well, and changes nothing.
        // SAFETY: both contexts are retained as long as who has them.
        let _ = unsafe { cuCtxEnablePeerAccess(other.context, 0) };
    }
}
