//! Sixteen f32 in registers, on each instruction set.
//!
//! A value of [`Avx512`] or [`Avx2`] is proof that the machine has it, so that kernels written against [`Simd`] need no
//! `unsafe`. They must be `#[inline(always)]` down from a function of [`by_isa!`](super::isa::by_isa), or the
//! operations become calls.

use super::math::sum_lanes;

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
    /// Widens sixteen bf16, given as their bits.
    fn load_bf16(self, from: &[u16; LANES]) -> Self::Vector;
    fn store(self, vector: Self::Vector, to: &mut [f32; LANES]);
    /// `a · b + c`, rounded once.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Turns each pair (x, y) of neighbours by the pair (cos, sin) of `angles`: (x·cos − y·sin, x·sin + y·cos), where the
    /// products with y are rounded on their own.
    fn rotate(self, pairs: Self::Vector, angles: Self::Vector) -> Self::Vector;
    /// Lane i is the sum of the lanes of `vectors[i]`, in the order of [`sum_lanes`].
    fn sum_each(self, vectors: [Self::Vector; LANES]) -> Self::Vector;
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
    fn load_bf16(self, from: &[u16; LANES]) -> [f32; LANES] {
        from.map(|bits| f32::from_bits(u32::from(bits) << 16))
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
    fn add(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn rotate(self, pairs: [f32; LANES], angles: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| {
            let (x, y) = (pairs[lane & !1], pairs[lane | 1]);
            let product = y * angles[lane ^ 1];
            x.mul_add(angles[lane], if lane % 2 == 0 { -product } else { product })
        })
    }

    #[inline(always)]
    fn sum_each(self, vectors: [[f32; LANES]; LANES]) -> [f32; LANES] {
        vectors.map(sum_lanes)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512, fetch};

/// Asks for the line of memory where `place` begins to be brought into the second-level cache.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(super) fn fetch<T>(_place: &T) {}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "intrinsics of instruction sets that the types prove")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Simd};

    /// Asks for the line of memory where `place` begins to be brought into the second-level cache.
    #[inline(always)]
    pub(in crate::cpu) fn fetch<T>(place: &T) {
        // SAFETY: a hint that reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>((&raw const *place).cast()) };
    }

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

    /// Steps of [`Simd::sum_each`].
    impl Avx512 {
        #[inline(always)]
        fn halves(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: `self` proves AVX-512F.
            unsafe { _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee)) }
        }

        #[inline(always)]
        fn quarters(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd)) }
        }

        #[inline(always)]
        fn eighths(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee)) }
        }

        #[inline(always)]
        fn neighbours(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd)) }
        }
    }

    /// Steps of [`Simd::sum_each`] and [`Simd::rotate`], on one half.
    impl Avx2 {
        #[inline(always)]
        fn rotate_half(self, pairs: __m256, angles: __m256) -> __m256 {
            // SAFETY: `self` proves AVX2 and FMA.
            unsafe {
                let products = _mm256_mul_ps(_mm256_movehdup_ps(pairs), _mm256_permute_ps(angles, 0xb1));
                _mm256_fmaddsub_ps(_mm256_moveldup_ps(pairs), angles, products)
            }
        }

        /// Lane i is the sum of the lanes of `vectors[i]`.
        #[inline(always)]
        fn sum_eight(self, vectors: &[[__m256; 2]]) -> __m256 {
            let a = self.quarters(vectors[0], vectors[4]);
            let b = self.quarters(vectors[1], vectors[5]);
            let c = self.quarters(vectors[2], vectors[6]);
            let d = self.quarters(vectors[3], vectors[7]);
            let (a, b) = (self.eighths(a, b), self.eighths(c, d));
            // SAFETY: `self` proves AVX2.
            unsafe { _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xdd)) }
        }

        #[inline(always)]
        fn quarters(self, a: [__m256; 2], b: [__m256; 2]) -> __m256 {
            // SAFETY: as above.
            unsafe {
                let (a, b) = (_mm256_add_ps(a[0], a[1]), _mm256_add_ps(b[0], b[1]));
                _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31))
            }
        }

        #[inline(always)]
        fn eighths(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: as above.
            unsafe { _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee)) }
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
        fn load_bf16(self, from: &[u16; LANES]) -> __m512 {
            // SAFETY: as above; the array has 32 bytes.
            unsafe {
                let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
            }
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
        fn add(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: `self` proves AVX-512F.
            unsafe { _mm512_add_ps(a, b) }
        }

        #[inline(always)]
        fn rotate(self, pairs: __m512, angles: __m512) -> __m512 {
            // SAFETY: `self` proves AVX-512F.
            unsafe {
                let products = _mm512_mul_ps(_mm512_movehdup_ps(pairs), _mm512_permute_ps(angles, 0xb1));
                _mm512_fmaddsub_ps(_mm512_moveldup_ps(pairs), angles, products)
            }
        }

        #[inline(always)]
        fn sum_each(self, vectors: [__m512; LANES]) -> __m512 {
            let [v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15] = vectors;
            // Each step halves what is left of a vector and puts two of them into one. The order of the vectors makes up for
            // the order in which the steps leave them.
            let (a, b) = (self.halves(v0, v4), self.halves(v8, v12));
            let (c, d) = (self.halves(v1, v5), self.halves(v9, v13));
            let (e, f) = (self.halves(v2, v6), self.halves(v10, v14));
            let (g, h) = (self.halves(v3, v7), self.halves(v11, v15));
            let (a, b, c, d) =
                (self.quarters(a, b), self.quarters(c, d), self.quarters(e, f), self.quarters(g, h));
            self.neighbours(self.eighths(a, b), self.eighths(c, d))
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
        fn load_bf16(self, from: &[u16; LANES]) -> [__m256; 2] {
            // SAFETY: `self` proves AVX2; the array has two times sixteen bytes.
            unsafe {
                let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast()));
                let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().add(LANES / 2).cast()));
                [
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
                ]
            }
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
        fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: `self` proves AVX2.
            unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn rotate(self, pairs: [__m256; 2], angles: [__m256; 2]) -> [__m256; 2] {
            [self.rotate_half(pairs[0], angles[0]), self.rotate_half(pairs[1], angles[1])]
        }

        #[inline(always)]
        fn sum_each(self, vectors: [[__m256; 2]; LANES]) -> [__m256; 2] {
            [self.sum_eight(&vectors[..8]), self.sum_eight(&vectors[8..])]
        }
    }
}
