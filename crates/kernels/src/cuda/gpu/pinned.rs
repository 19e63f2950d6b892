//! Host memory from which the device copies by itself.

use cudarc::driver::result::{DriverError, free_host, malloc_host};

/// A stretch that is filled from its start; full, it begins again once the device has read everything.
#[derive(Debug)]
pub(super) struct Pinned {
    start: *mut u8,
    used: usize,
}

// SAFETY: the memory is this value's own.
unsafe impl Send for Pinned {}

impl Pinned {
    /// More than a tick copies, but for very long prompts: row lists, block tables, initial latents.
    pub(super) const BYTES: usize = 16 << 20;

    /// In the current context.
    pub(super) fn new() -> Result<Self, DriverError> {
        // SAFETY: what is not initialised is written by `put` before anybody reads it.
        let start = unsafe { malloc_host(Self::BYTES, 0) }?;
        Ok(Self { start: start.cast(), used: 0 })
    }

    /// Whether `bytes` more can be put.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.used + bytes <= Self::BYTES
    }

    /// Forgets everything. The device must have read it.
    pub(super) fn reset(&mut self) {
        self.used = 0;
    }

    /// A copy of `from` that stays until the next [`Self::reset`].
    pub(super) fn put(&mut self, from: &[u8]) -> &[u8] {
        assert!(self.has_room(from.len()), "{} bytes behind {}", from.len(), self.used);
        // SAFETY: there is room, and what is behind `used` nobody reads.
        let place = unsafe {
            let place = self.start.add(self.used);
            place.copy_from_nonoverlapping(from.as_ptr(), from.len());
            std::slice::from_raw_parts(place, from.len())
        };
        self.used += from.len();
        place
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: from `malloc_host`, and freed once. An error is that of earlier work.
        let _: Result<(), DriverError> = unsafe { free_host(self.start.cast()) };
    }
}
