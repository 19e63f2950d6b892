//! Numbers as the bytes that copies move.
#![expect(unsafe_code, reason = "numbers are read and written as bytes")]

/// A type of which every pattern of bits is a value, without padding.
pub(crate) trait Number: Copy + Default + sealed::Sealed {}

mod sealed {
    pub(crate) trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
}

impl<T: sealed::Sealed + Copy + Default> Number for T {}

/// The bytes of `numbers`.
pub(crate) fn bytes<T: Number>(numbers: &[T]) -> &[u8] {
    // SAFETY: a `Number` has no padding, so all of its bytes are initialised; u8 needs no alignment.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

/// The bytes of `numbers`, to be written.
#[cfg(feature = "cuda")]
pub(crate) fn bytes_mut<T: Number>(numbers: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, and any bytes written make valid numbers.
    unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), size_of_val(numbers)) }
}
