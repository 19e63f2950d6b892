//! Host memory from which the device copies by itself.

use cudarc::driver::result::{DriverError, free_host, malloc_host};

/// A ring that is filled in turns: what is put may lie where something was that the device has read.
#[derive(Debug)]
pub(super) struct Pinned {
    start: *mut u8,
    /// Bytes put so far, with what was left free at the ends of turns.
    put: u64,
    /// How many of them the device has read.
    read: u64,
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
        Ok(Self { start: start.cast(), put: 0, read: 0 })
    }

    /// Whether `bytes` more can be put.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let (begin, _) = self.place(bytes);
        begin + bytes as u64 - self.read <= Self::BYTES as u64
    }

    /// How much has been put so far.
    pub(super) fn put_so_far(&self) -> u64 {
        self.put
    }

    /// The device has read what had been put by then.
    pub(super) fn has_read(&mut self, put: u64) {
        self.read = self.read.max(put);
    }

    /// A copy of `from` that stays until the device is said to have read it.
    pub(super) fn put(&mut self, from: &[u8]) -> &[u8] {
        assert!(self.has_room(from.len()), "{} bytes behind {} unread", from.len(), self.put - self.read);
        let (begin, at) = self.place(from.len());
        self.put = begin + from.len() as u64;
        // SAFETY: the place lies within the memory, and what is there has been read.
        unsafe {
            let place = self.start.add(at);
            place.copy_from_nonoverlapping(from.as_ptr(), from.len());
            std::slice::from_raw_parts(place, from.len())
        }
    }

    /// Where `bytes` in one piece are put: behind what was put so far, as a count of bytes and as a place. No more than there are.
    fn place(&self, bytes: usize) -> (u64, usize) {
        let at = (self.put % Self::BYTES as u64) as usize;
        if at + bytes <= Self::BYTES { (self.put, at) } else { (self.put + (Self::BYTES - at) as u64, 0) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: from `malloc_host`, and freed once. An error is that of earlier work.
        let _: Result<(), DriverError> = unsafe { free_host(self.start.cast()) };
    }
}
