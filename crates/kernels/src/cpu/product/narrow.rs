//! Narrow numbers: rounding to bf16 and int8, and groups of them.

use super::geometry::GROUPS;

/// Inputs of one group of bf16.
pub(super) const BF16_GROUP: usize = 2;
/// Inputs of one group of int8.
pub(super) const INT8_GROUP: usize = 4;

/// Rounds to the nearest bf16, ties to even; denormals become zero, NaN stays NaN.
#[inline(always)]
pub(super) fn to_bf16(value: f32) -> u16 {
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
    /// So large that the last bit of a sum with it stands for 1: what is below is rounded off.
    const ROUND: f32 = 12_582_912.0;
    (value * inverse + ROUND).to_bits() as u8
}

/// 1 / scale, or 0 for a row of zeros.
#[inline(always)]
pub(super) fn inverse(scale: f32) -> f32 {
    if scale > 0.0 { 1.0 / scale } else { 0.0 }
}

#[inline(always)]
pub(super) fn largest_magnitude(values: &[f32]) -> f32 {
    // The bits of positive numbers are ordered as the numbers are, and integers have a maximum in any order.
    let bits = values.iter().fold(0, |largest, value| value.abs().to_bits().max(largest));
    f32::from_bits(bits)
}

/// Groups of bf16 from the values of a block; missing ones are zero.
#[inline(always)]
pub(super) fn bf16_groups(values: &[f32], groups: &mut [u32; GROUPS]) {
    let mut rounded = [0_u16; GROUPS * BF16_GROUP];
    match <&[f32; GROUPS * BF16_GROUP]>::try_from(values) {
        Ok(values) => rounded = values.map(to_bf16),
        Err(_) => {
            for (rounded, &value) in rounded.iter_mut().zip(values) {
                *rounded = to_bf16(value);
            }
        }
    }
    for (group, &[low, high]) in groups.iter_mut().zip(rounded.as_chunks::<BF16_GROUP>().0) {
        *group = u32::from(low) | u32::from(high) << 16;
    }
}

/// Groups of int8 from the values of a block; missing ones are zero.
#[inline(always)]
pub(super) fn int8_groups(values: &[f32], inverse: f32, groups: &mut [u32; GROUPS]) {
    let mut rounded = [0_u8; GROUPS * INT8_GROUP];
    match <&[f32; GROUPS * INT8_GROUP]>::try_from(values) {
        Ok(values) => rounded = values.map(|value| to_int8(value, inverse)),
        Err(_) => {
            for (rounded, &value) in rounded.iter_mut().zip(values) {
                *rounded = to_int8(value, inverse);
            }
        }
    }
    for (group, bytes) in groups.iter_mut().zip(rounded.as_chunks::<INT8_GROUP>().0) {
        *group = u32::from_le_bytes(*bytes);
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
        let scale = int8_scale(largest_magnitude(&[0.5, -2.0, 1.0]));
        let round = |value| to_int8(value, inverse(scale)) as i8;
        assert_eq!(
            [round(-2.0), round(2.0), round(0.0), round(scale / 2.0), round(scale)],
            [-127, 127, 0, 0, 1]
        );
        assert_eq!(to_int8(3.0, inverse(0.0)), 0);
    }
}
