//! A slice that several threads write, each its own part of it.

use std::marker::PhantomData;

/// A mutable slice shared by the parts of one job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disjoint<'a, T> {
    data: *mut T,
    len: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

#[expect(unsafe_code, reason = "threads write disjoint ranges of one slice")]
// SAFETY: parts of one job own disjoint ranges (see `range`), so no value is touched by two threads.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}
#[expect(unsafe_code, reason = "as above")]
// SAFETY: as above.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self { data: slice.as_mut_ptr(), len: slice.len(), borrowed: PhantomData }
    }

    /// `len` values from `start` on. No two parts of a job may ask for overlapping ranges, and none may hold two
    /// overlapping ones.
    #[expect(unsafe_code, clippy::mut_from_ref, reason = "the disjoint ranges of this type")]
    #[inline(always)]
    pub(super) fn range(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "range outside of the slice");
        // SAFETY: inside the slice (checked above), borrowed for 'a, and the calling part's alone.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}
