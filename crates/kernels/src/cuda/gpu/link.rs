//! A link between two devices of different processes, by which one sends rows to the other.

use cudarc::driver::result::{DriverError, free_sync, malloc_sync, stream};
use cudarc::driver::sys::CUstream;

use super::driver::to;
use super::nccl::{Communicator, GroupId};
use crate::cuda_error::CudaError;
use crate::group::Loss;

/// Which end of a link a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The one that sends.
    Sender = 0,
    /// The one that receives.
    Receiver = 1,
}

/// A device's end of a link, with a stream of its own: what waits there for the other end holds up nothing else.
pub(super) struct Link {
    /// Before the stream, on which what is under way ends with it.
    communicator: Communicator,
    stream: LinkStream,
    peer: usize,
}

struct LinkStream(CUstream);

// SAFETY: the driver's handles may be used from any thread that has made the context current.
unsafe impl Send for LinkStream {}

impl Link {
    /// This end of the link that `id` names, of the device that `bind` makes the thread's own. Waits for the other end.
    pub(super) fn open(id: &GroupId, end: End, loss: &Loss, bind: impl Fn()) -> Result<Self, CudaError> {
        let communicator = Communicator::join(id, (2, end as usize, 1), loss, |_| bind())?.swap_remove(0);
        bind();
        let stream = stream::create(stream::StreamKind::NonBlocking).map_err(to("make a stream"))?;
        let link = Self { communicator, stream: LinkStream(stream), peer: 1 - end as usize };
        link.connect(end).map_err(to("connect a link"))?;
        Ok(link)
    }

    /// Sends some bytes: NCCL connects the ends when they first do, for which each waits for the other on the host.
    fn connect(&self, end: End) -> Result<(), DriverError> {
        const BYTES: usize = 16;
        // SAFETY: the memory has as many bytes, of which any value is right, and is freed once nothing uses it any more.
        unsafe {
            let memory = malloc_sync(BYTES)?;
            match end {
                End::Sender => self.send(memory, BYTES),
                End::Receiver => self.receive(memory, BYTES),
            }
            stream::synchronize(self.stream.0)?;
            free_sync(memory)
        }
    }

    /// What is sent and received in order.
    pub(super) fn stream(&self) -> CUstream {
        self.stream.0
    }

    /// Sends `bytes` at `from`.
    ///
    /// # Safety
    /// There are as many bytes of this device, until they are sent.
    pub(super) unsafe fn send(&self, from: u64, bytes: usize) {
        // SAFETY: as the caller's.
        unsafe { self.communicator.send(from, bytes, self.peer, self.stream.0) }
    }

    /// Receives `bytes` to `to`.
    ///
    /// # Safety
    /// There are as many bytes of this device, until they are received.
    pub(super) unsafe fn receive(&self, to: u64, bytes: usize) {
        // SAFETY: as the caller's.
        unsafe { self.communicator.receive(to, bytes, self.peer, self.stream.0) }
    }

    /// Whether the other end is lost.
    pub(super) fn is_lost(&self) -> bool {
        self.communicator.is_lost()
    }
}

impl Drop for LinkStream {
    /// In its context.
    fn drop(&mut self) {
        // SAFETY: nobody has the stream any more. Errors are those of earlier work.
        let _ = unsafe { stream::destroy(self.0) };
    }
}
