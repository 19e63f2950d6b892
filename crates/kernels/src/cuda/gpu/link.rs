//! Links between devices of different processes, by which one sends rows to the other.

use std::thread;

use cudarc::driver::result::{DriverError, free_sync, malloc_sync, stream};
use cudarc::driver::sys::{CUresult, CUstream, cuStreamQuery};

use super::connections::end;
use super::driver::to;
use super::nccl::{self, Communicator, GroupId};
use crate::cuda_error::CudaError;
use crate::group::Loss;

/// A device's links to others of the same rank.
pub(super) struct Links {
    /// From the stage before.
    pub(super) before: Link,
    /// To the next stage.
    pub(super) next: Link,
}

/// A device's end of a link, with a stream of its own: what waits there for the other end holds up nothing else.
pub(super) struct Link {
    pub(super) communicator: Communicator,
    pub(super) stream: LinkStream,
    /// The other end, which is rank 0 where it sends.
    peer: usize,
}

/// A stream, ended in its context.
pub(super) struct LinkStream(CUstream);

// SAFETY: the driver's handles may be used from any thread that has made the context current.
unsafe impl Send for LinkStream {}

impl Links {
    /// Those that the ids name, of the device that `bind` makes a thread's own. Waits until both neighbours have come, and those of
    /// all others in the ring.
    pub(super) fn open(
        [before, next]: [&GroupId; 2],
        loss: &Loss,
        bind: impl Fn() + Sync,
    ) -> Result<Self, CudaError> {
        let join = |id: &GroupId, rank: usize| -> Result<Communicator, CudaError> {
            Ok(Communicator::join(id, (2, rank, 1), loss, |_| bind())?.swap_remove(0))
        };
        // Both at once: in a ring one would wait for the other.
        let (before, next) = thread::scope(|scope| {
            let before = scope.spawn(|| join(before, 1));
            let next = join(next, 0);
            (before.join().expect("joining does not panic"), next)
        });
        bind();
        let links = Self { before: Link::new(before?, 0)?, next: Link::new(next?, 1)? };
        match links.connect() {
            Ok(()) => Ok(links),
            Err(error) => {
                end(None, Some(links));
                Err(error)
            }
        }
    }

    /// Sends and receives some bytes: NCCL connects two ends when they first do, for which each waits for the other on the host. Here
    /// all of a ring do so at once.
    fn connect(&self) -> Result<(), CudaError> {
        const BYTES: usize = 16;
        // SAFETY: whatever is in it is right.
        let memory = || unsafe { malloc_sync(BYTES) }.map_err(to("allocate memory"));
        let (sent, received) = (memory()?, memory()?);
        // SAFETY: there are as many bytes.
        nccl::together(|| unsafe {
            self.before.receive(received, BYTES);
            self.next.send(sent, BYTES);
        })?;
        for link in [&self.before, &self.next] {
            // SAFETY: the stream is the link's.
            while unsafe { cuStreamQuery(link.stream()) } == CUresult::CUDA_ERROR_NOT_READY {
                if self.is_lost() {
                    return Err(CudaError::GroupLost);
                }
                thread::yield_now();
            }
        }
        for memory in [sent, received] {
            // SAFETY: nothing uses it any more.
            unsafe { free_sync(memory) }.map_err(to("free memory"))?;
        }
        Ok(())
    }

    /// Whether a neighbour is lost.
    pub(super) fn is_lost(&self) -> bool {
        self.before.communicator.is_lost() || self.next.communicator.is_lost()
    }
}

impl Link {
    /// One of the current context.
    fn new(communicator: Communicator, peer: usize) -> Result<Self, CudaError> {
        let stream = LinkStream::new().map_err(to("make a stream"))?;
        Ok(Self { communicator, stream, peer })
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
}

impl LinkStream {
    /// One of the current context. What it has under way comes before the stages' own work: that is short, and others wait for it.
    fn new() -> Result<Self, DriverError> {
        let (_, highest) = stream::get_priority_range()?;
        stream::create_with_priority(stream::StreamKind::NonBlocking, highest).map(Self)
    }
}

impl Drop for LinkStream {
    fn drop(&mut self) {
        // SAFETY: nobody has the stream any more. Errors are those of earlier work.
        let _ = unsafe { stream::destroy(self.0) };
    }
}
