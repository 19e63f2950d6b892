//! Narrow numbers: rounding to bf16 and int8, and groups of them.

use super::geometry::GROUPS;

/// Inputs of one group of bf16.
pub(super) const BF16_GROUP: usize = 2;
/// Inputs of one group of int8.
pub(super) const INT8_GROUP: usize = 4;

/// Rounds to the nearest bf16, ties to even; denormals become zero, NaN stays NaN.
#[inline(always)]
pub(in crate::cpu) fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    let denormal = bits & 0x7f80_0000 == 0;
    let result = if denormal { (bits >> 16) as u16 & 0x8000 } else { rounded };
    if value.is_nan() { 0x7fc0 } else { result }
}

/// The scale that maps `largest`, a largest absolute value, to 127.
#[inline(always)]
pub(super) fn int8_scale(largest: f32) -> f32 {
    largest / 127.0
}

/// Rounds `value / scale` to the nearest int8, ties to even. `inverse` is 1 / scale, or 0 where scale is.
#[inline(always)]
pub(super) fn to_int8(value: f32, inverse: f32) -> u8 {
    (value * inverse + ROUND).to_bits() as u8
}

/// So large that the last bit of a sum with it stands for 1: what is below is rounded off.
const ROUND: f32 = 12_582_912.0;

/// 1 / scale, or 0 for a row of zeros.
#[inline(always)]
pub(super) fn inverse(scale: f32) -> f32 {
    if scale > 0.0 { 1.0 / scale } else { 0.0 }
}

/// Rounds the values of one block. Both ways give the same bits.
pub(super) trait Round: Copy {
    /// Groups of bf16; missing values are zero.
    fn bf16(self, values: &[f32], groups: &mut [u32; GROUPS]);
    /// Groups of int8 as by [`to_int8`]; missing values are zero.
    fn int8(self, values: &[f32], inverse: f32, groups: &mut [u32; GROUPS]);
    /// The largest absolute value.
    fn largest_magnitude(self, values: &[f32]) -> f32;
}

/// One value after the other.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Round for Plain {
    #[inline(always)]
    fn bf16(self, values: &[f32], groups: &mut [u32; GROUPS]) {
        *groups = [0; GROUPS];
        for (i, &value) in values.iter().enumerate() {
            groups[i / BF16_GROUP] |= u32::from(to_bf16(value)) << (16 * (i % BF16_GROUP));
        }
    }

    #[inline(always)]
    fn int8(self, values: &[f32], inverse: f32, groups: &mut [u32; GROUPS]) {
        *groups = [0; GROUPS];
        for (i, &value) in values.iter().enumerate() {
            groups[i / INT8_GROUP] |= u32::from(to_int8(value, inverse)) << (8 * (i % INT8_GROUP));
        }
    }

    #[inline(always)]
    fn largest_magnitude(self, values: &[f32]) -> f32 {
        values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::Vectors;

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "intrinsics of an instruction set that the type proves")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{GROUPS, Plain, Round};

    /// Proof that the machine has AVX-512 with bf16.
    #[derive(Clone, Copy)]
    pub(in crate::cpu::product) struct Vectors(());

    impl Vectors {
        /// # Safety
        /// The machine must have AVX-512F and AVX-512-BF16.
        pub(in crate::cpu::product) unsafe fn assume() -> Self {
            Self(())
        }
    }

    impl Round for Vectors {
        #[inline(always)]
        fn bf16(self, values: &[f32], groups: &mut [u32; GROUPS]) {
            let Ok(values) = <&[f32; 32]>::try_from(values) else {
                return Plain.bf16(values, groups);
            };
            // SAFETY: `self` proves the features; both arrays have the bytes that are loaded and stored.
            unsafe {
                let [low, high] = [0, 16].map(|from| _mm512_loadu_ps(values.as_ptr().add(from)));
                let rounded = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                _mm512_storeu_si512(groups.as_mut_ptr().cast(), rounded);
            }
        }

        #[inline(always)]
        fn int8(self, values: &[f32], inverse: f32, groups: &mut [u32; GROUPS]) {
            let Ok(values) = <&[f32; 64]>::try_from(values) else {
                return Plain.int8(values, inverse, groups);
            };
            // SAFETY: as above.
            unsafe {
                for quarter in 0..4 {
                    let values = _mm512_loadu_ps(values.as_ptr().add(16 * quarter));
                    let rounding = _mm512_set1_ps(super::ROUND);
                    let scaled = _mm512_mul_ps(values, _mm512_set1_ps(inverse));
                    let bits = _mm512_castps_si512(_mm512_add_ps(scaled, rounding));
                    _mm_storeu_si128(groups.as_mut_ptr().add(4 * quarter).cast(), _mm512_cvtepi32_epi8(bits));
                }
            }
        }

        #[inline(always)]
        fn largest_magnitude(self, values: &[f32]) -> f32 {
            let (whole, rest) = values.as_chunks::<16>();
            // SAFETY: as above.
            unsafe {
                let mut largest = _mm512_setzero_ps();
                for values in whole {
                    // The second operand is the result where the first is NaN, so that NaN is passed over.
                    largest = _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(values.as_ptr())), largest);
                }
                _mm512_reduce_max_ps(largest).max(Plain.largest_magnitude(rest))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_bf16(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }

    #[test]
    fn bf16_rounds_to_nearest_and_ties_to_even() {
        assert_eq!(from_bf16(to_bf16(1.0)), 1.0);
        assert_eq!(from_bf16(to_bf16(1.0 + 1.0 / 256.0)), 1.0);
        assert_eq!(from_bf16(to_bf16(1.0 + 3.0 / 256.0)), 1.0 + 4.0 / 256.0);
        assert_eq!(from_bf16(to_bf16(-1.0 - 1.0 / 255.0)), -1.0 - 1.0 / 128.0);
        assert_eq!(to_bf16(-1e-39), 0x8000);
        assert!(from_bf16(to_bf16(f32::NAN)).is_nan());
        assert_eq!(from_bf16(to_bf16(f32::MAX)), f32::INFINITY);
    }

    #[test]
    fn int8_uses_the_whole_range() {
        let scale = int8_scale(Plain.largest_magnitude(&[0.5, -2.0, 1.0]));
        let round = |value| to_int8(value, inverse(scale)) as i8;
        assert_eq!(
            [round(-2.0), round(2.0), round(0.0), round(scale / 2.0), round(scale)],
            [-127, 127, 0, 0, 1]
        );
        assert_eq!(to_int8(3.0, inverse(0.0)), 0);
    }
}
