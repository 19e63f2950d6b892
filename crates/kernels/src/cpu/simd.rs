//! Sixteen f32 in registers, on each instruction set.
//!
//! A value of [`Avx512`] or [`Avx2`] is proof that the machine has it, so that kernels written against [`Simd`] need no
//! `unsafe`. They must be `#[inline(always)]` down from a function of [`by_isa!`](super::isa::by_isa), or the
//! operations become calls.

/// Values of one vector.
pub(super) const LANES: usize = 16;

/// Operations on vectors of [`LANES`] values. All instruction sets give the same bits.
pub(super) trait Simd: Copy {
    /// Sixteen f32.
    type Vector: Copy;
    /// Whether there are 32 registers of this size.
    const WIDE: bool;

    fn splat(self, value: f32) -> Self::Vector;
    fn load(self, from: &[f32; LANES]) -> Self::Vector;
    fn store(self, vector: Self::Vector, to: &mut [f32; LANES]);
    /// `a · b + c`, rounded once.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// Asks for `line` to be brought into the second-level cache.
    fn fetch(self, line: &[f32; LANES]);
}

/// What the target guarantees.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portable;

impl Simd for Portable {
    type Vector = [f32; LANES];
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> [f32; LANES] {
        *from
    }

    #[inline(always)]
    fn store(self, vector: [f32; LANES], to: &mut [f32; LANES]) {
        *to = vector;
    }

    #[inline(always)]
    fn mul_add(self, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| a[lane].mul_add(b[lane], c[lane]))
    }

    #[inline(always)]
    fn fetch(self, _: &[f32; LANES]) {}
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "intrinsics of instruction sets that the types prove")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Simd};

    /// Proof that the machine has AVX-512F.
    #[derive(Debug, Clone, Copy)]
    pub(in crate::cpu) struct Avx512(());

    /// Proof that the machine has AVX2 and FMA.
    #[derive(Debug, Clone, Copy)]
    pub(in crate::cpu) struct Avx2(());

    impl Avx512 {
        /// # Safety
        /// The machine must have AVX-512F.
        pub(in crate::cpu) unsafe fn assume() -> Self {
            Self(())
        }
    }

    impl Avx2 {
        /// # Safety
        /// The machine must have AVX2 and FMA.
        pub(in crate::cpu) unsafe fn assume() -> Self {
            Self(())
        }
    }

    impl Simd for Avx512 {
        type Vector = __m512;
        const WIDE: bool = true;

        #[inline(always)]
        fn splat(self, value: f32) -> __m512 {
            // SAFETY: `self` proves AVX-512F.
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> __m512 {
            // SAFETY: as above; the array has sixteen values.
            unsafe { _mm512_loadu_ps(from.as_ptr()) }
        }

        #[inline(always)]
        fn store(self, vector: __m512, to: &mut [f32; LANES]) {
            // SAFETY: as above; the array has room for sixteen values.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), vector) }
        }

        #[inline(always)]
        fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: `self` proves AVX-512F.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn fetch(self, line: &[f32; LANES]) {
            // SAFETY: a hint that reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
        }
    }

    impl Simd for Avx2 {
        type Vector = [__m256; 2];
        const WIDE: bool = false;

        #[inline(always)]
        fn splat(self, value: f32) -> [__m256; 2] {
            // SAFETY: `self` proves AVX2.
            [unsafe { _mm256_set1_ps(value) }; 2]
        }

        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> [__m256; 2] {
            // SAFETY: `self` proves AVX2; the array has two times eight values.
            unsafe { [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(LANES / 2))] }
        }

        #[inline(always)]
        fn store(self, [low, high]: [__m256; 2], to: &mut [f32; LANES]) {
            // SAFETY: `self` proves AVX2; the array has room for two times eight values.
            unsafe {
                _mm256_storeu_ps(to.as_mut_ptr(), low);
                _mm256_storeu_ps(to.as_mut_ptr().add(LANES / 2), high);
            }
        }

        #[inline(always)]
        fn mul_add(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: `self` proves FMA.
            unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
        }

        #[inline(always)]
        fn fetch(self, line: &[f32; LANES]) {
            // SAFETY: a hint that reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
        }
    }
}
