//! Dot products on the instructions of x86.

use std::arch::x86_64::*;

use crate::cpu::product::strips::Dot;

/// Proof that the machine has AVX-512 with bf16 dot products.
#[derive(Clone, Copy)]
pub(super) struct Bf16Vectors(());

/// Proof that the machine has AVX-512 with int8 dot products.
#[derive(Clone, Copy)]
pub(super) struct Int8Vectors(());

impl Bf16Vectors {
    /// # Safety
    /// The machine must have AVX-512F and AVX-512-BF16.
    pub(super) unsafe fn assume() -> Self {
        Self(())
    }
}

impl Int8Vectors {
    /// # Safety
    /// The machine must have AVX-512F and AVX-512-VNNI.
    pub(super) unsafe fn assume() -> Self {
        Self(())
    }
}

impl Dot for Bf16Vectors {
    type Group = u32;
    type Sums = __m512;
    const TILE: usize = 24;

    #[inline(always)]
    fn zero(self) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> __m512 {
        // SAFETY: as above; the array has sixteen values.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, sums: __m512, to: &mut [f32; 16]) {
        // SAFETY: as above; the array has room for sixteen values.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), sums) }
    }

    #[inline(always)]
    fn add(self, sums: __m512, input: u32, weights: &[u32; 16]) -> __m512 {
        // SAFETY: `self` proves the features; the array has 64 bytes, and pairs are any bits.
        unsafe {
            let weights = _mm512_loadu_si512(weights.as_ptr().cast());
            let pair = |bits: __m512i| std::mem::transmute::<__m512i, __m512bh>(bits);
            _mm512_dpbf16_ps(sums, pair(_mm512_set1_epi32(input as i32)), pair(weights))
        }
    }
}

impl Dot for Int8Vectors {
    type Group = u32;
    type Sums = __m512i;
    const TILE: usize = 24;

    #[inline(always)]
    fn zero(self) -> __m512i {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> __m512i {
        // SAFETY: as above; the array has 64 bytes.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, sums: __m512i, to: &mut [f32; 16]) {
        // SAFETY: as above; the array has room for 64 bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), sums) }
    }

    #[inline(always)]
    fn add(self, sums: __m512i, input: u32, weights: &[u32; 16]) -> __m512i {
        // SAFETY: `self` proves the features; the array has 64 bytes.
        unsafe {
            let weights = _mm512_loadu_si512(weights.as_ptr().cast());
            _mm512_dpbusd_epi32(sums, _mm512_set1_epi32(input as i32), weights)
        }
    }
}

/// Proof that the machine has AVX2 and fused multiply-adds, on which bf16 is multiplied as f32.
#[derive(Clone, Copy)]
pub(super) struct Bf16Halves(());

/// Proof that the machine has AVX2, on which int8 is multiplied as int16.
#[derive(Clone, Copy)]
pub(super) struct Int8Halves(());

impl Bf16Halves {
    /// # Safety
    /// The machine must have AVX2 and FMA.
    pub(super) unsafe fn assume() -> Self {
        Self(())
    }

    /// Zeros for denormals.
    #[inline(always)]
    fn flush(self, values: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            let size = _mm256_andnot_ps(sign, values);
            let kept = _mm256_cmp_ps::<_CMP_NLT_UQ>(size, _mm256_set1_ps(f32::MIN_POSITIVE));
            _mm256_and_ps(values, _mm256_or_ps(kept, sign))
        }
    }
}

impl Int8Halves {
    /// # Safety
    /// The machine must have AVX2.
    pub(super) unsafe fn assume() -> Self {
        Self(())
    }
}

impl Dot for Bf16Halves {
    type Group = u32;
    type Sums = [__m256; 2];
    const TILE: usize = 4;

    #[inline(always)]
    fn zero(self) -> [__m256; 2] {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_setzero_ps(); 2] }
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> [__m256; 2] {
        // SAFETY: as above; the array has twice eight values.
        unsafe { [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn store(self, sums: [__m256; 2], to: &mut [f32; 16]) {
        // SAFETY: as above; the array has room for twice eight values.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), sums[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), sums[1]);
        }
    }

    #[expect(clippy::needless_range_loop, reason = "one index for two arrays of known length")]
    #[inline(always)]
    fn add(self, mut sums: [__m256; 2], input: u32, weights: &[u32; 16]) -> [__m256; 2] {
        for half in 0..2 {
            // SAFETY: `self` proves the features; the array has twice 32 bytes.
            unsafe {
                let pairs = _mm256_loadu_si256(weights.as_ptr().add(8 * half).cast());
                let odd = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32));
                let even = _mm256_slli_epi32::<16>(pairs);
                for (input, weights) in [(super::odd(input), odd), (super::even(input), even)] {
                    let weights = _mm256_castsi256_ps(weights);
                    let sum = _mm256_fmadd_ps(_mm256_set1_ps(input), weights, sums[half]);
                    sums[half] = self.flush(sum);
                }
            }
        }
        sums
    }
}

impl Dot for Int8Halves {
    type Group = u32;
    type Sums = [__m256i; 2];
    const TILE: usize = 4;

    #[inline(always)]
    fn zero(self) -> [__m256i; 2] {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> [__m256i; 2] {
        // SAFETY: as above; the array has twice 32 bytes.
        unsafe { [_mm256_loadu_si256(from.as_ptr().cast()), _mm256_loadu_si256(from.as_ptr().add(8).cast())] }
    }

    #[inline(always)]
    fn store(self, sums: [__m256i; 2], to: &mut [f32; 16]) {
        // SAFETY: as above; the array has room for twice 32 bytes.
        unsafe {
            _mm256_storeu_si256(to.as_mut_ptr().cast(), sums[0]);
            _mm256_storeu_si256(to.as_mut_ptr().add(8).cast(), sums[1]);
        }
    }

    #[expect(clippy::needless_range_loop, reason = "one index for two arrays of known length")]
    #[inline(always)]
    fn add(self, mut sums: [__m256i; 2], input: u32, weights: &[u32; 16]) -> [__m256i; 2] {
        // Bytes 0 and 2, then 1 and 3, each as int16: products of pairs and their sums are exact.
        let inputs = [input & 0x00ff_00ff, input >> 8 & 0x00ff_00ff];
        for half in 0..2 {
            // SAFETY: `self` proves AVX2; the array has twice 32 bytes.
            unsafe {
                let fours = _mm256_loadu_si256(weights.as_ptr().add(8 * half).cast());
                let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(fours));
                let odd = _mm256_srai_epi16::<8>(fours);
                for (input, weights) in [(inputs[0], even), (inputs[1], odd)] {
                    let products = _mm256_madd_epi16(_mm256_set1_epi32(input as i32), weights);
                    sums[half] = _mm256_add_epi32(sums[half], products);
                }
            }
        }
        sums
    }
}
