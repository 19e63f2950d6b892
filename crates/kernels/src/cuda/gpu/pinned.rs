//! Host memory from which the device copies by itself.

use cudarc::driver::result::{DriverError, free_host, malloc_host};

use super::ring::Ring;

/// A stretch that is filled in turns: what is put may lie where something was that the device has read.
#[derive(Debug)]
pub(super) struct Pinned {
    start: *mut u8,
    ring: Ring,
}

// SAFETY: the memory is this value's own.
unsafe impl Send for Pinned {}

impl Pinned {
    /// More than two ticks copy, but for very long prompts: row lists, block tables, initial latents.
    pub(super) const BYTES: usize = 16 << 20;

    /// In the current context.
    pub(super) fn new() -> Result<Self, DriverError> {
        // SAFETY: what is not initialised is written by `put` before anybody reads it.
        let start = unsafe { malloc_host(Self::BYTES, 0) }?;
        Ok(Self { start: start.cast(), ring: Ring::new(Self::BYTES) })
    }

    /// How much has been put so far.
    pub(super) fn put_so_far(&self) -> u64 {
        self.ring.taken()
    }

    /// The device has read what had been put by then.
    pub(super) fn has_read(&mut self, put: u64) {
        self.ring.give_back(put);
    }

    /// A copy of `from` that stays until the device is said to have read it; none where there is no room before.
    pub(super) fn put(&mut self, from: &[u8]) -> Option<&[u8]> {
        let at = self.ring.take(from.len())?;
        // SAFETY: the place lies within the memory, and what was there has been read.
        Some(unsafe {
            let place = self.start.add(at);
            place.copy_from_nonoverlapping(from.as_ptr(), from.len());
            std::slice::from_raw_parts(place, from.len())
        })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: from `malloc_host`, and freed once. An error is that of earlier work.
        let _: Result<(), DriverError> = unsafe { free_host(self.start.cast()) };
    }
}
