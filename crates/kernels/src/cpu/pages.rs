//! Memory for what is large and read from end to end: weights, keys and values.

use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// A fixed number of values, zeros at first, in huge pages where the system has them: processors read memory faster in order, and
/// find it faster out of order, when its pages are few. A page takes memory when it is first touched, 2 MiB where it is huge.
pub(super) struct Pages<T> {
    map: MmapMut,
    len: usize,
    values: PhantomData<[T]>,
}

/// # Safety
/// Zeros must be a value of the type, which must need no more than a page's alignment and no `drop`.
#[expect(unsafe_code, reason = "memory of zeros becomes values of the type")]
pub(super) unsafe trait FromZeros: Copy {}

// SAFETY: a number.
#[expect(unsafe_code, reason = "zeros are a value")]
unsafe impl FromZeros for f32 {}

// SAFETY: a number.
#[expect(unsafe_code, reason = "zeros are a value")]
unsafe impl FromZeros for u32 {}

// SAFETY: a number.
#[expect(unsafe_code, reason = "zeros are a value")]
unsafe impl FromZeros for u16 {}

impl<T: FromZeros> Pages<T> {
    /// `len` zeros. Aborts where the system has no memory, as a `Vec` does.
    pub(super) fn new(len: usize) -> Self {
        let layout = Layout::array::<T>(len).expect("less than the address space");
        // No mapping is empty.
        let map = MmapMut::map_anon(layout.size().max(1)).unwrap_or_else(|_| handle_alloc_error(layout));
        #[cfg(target_os = "linux")]
        {
            // A kernel without huge pages refuses; its small ones serve.
            drop(map.advise(memmap2::Advice::HugePage));
        }
        Self { map, len, values: PhantomData }
    }
}

impl<T: FromZeros> Deref for Pages<T> {
    type Target = [T];

    #[expect(unsafe_code, reason = "memory seen as values")]
    fn deref(&self) -> &[T] {
        // SAFETY: the mapping has room for `len` values and begins at a page; what is not a value was never written.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.len) }
    }
}

impl<T: FromZeros> DerefMut for Pages<T> {
    #[expect(unsafe_code, reason = "memory seen as values")]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; the mapping is this value's alone.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.len) }
    }
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_begin_as_zeros_and_keep_what_is_written() {
        for len in [0, 1, 5000] {
            let mut pages = Pages::<f32>::new(len);
            assert_eq!(*pages, vec![0.0; len]);
            pages.fill(2.0);
            assert_eq!(*pages, vec![2.0; len]);
        }
    }
}
