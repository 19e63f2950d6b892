//! What operations report to the host.

use crate::backend::{LargestOutput, LatentChange};

/// What an operation reports of each row.
pub trait Reported: Copy + Send + 'static {
    /// Bytes of one on a device.
    const BYTES: usize;

    /// Of so many bytes, as a device writes them.
    fn from_bytes(bytes: &[u8]) -> Self;
}

impl Reported for f32 {
    const BYTES: usize = 4;

    fn from_bytes(bytes: &[u8]) -> Self {
        Self::from_bits(word(bytes, 0))
    }
}

impl Reported for u32 {
    const BYTES: usize = 4;

    fn from_bytes(bytes: &[u8]) -> Self {
        word(bytes, 0)
    }
}

impl Reported for LatentChange {
    const BYTES: usize = 16;

    fn from_bytes(bytes: &[u8]) -> Self {
        let [difference_squared, current_squared, previous_squared, dot] =
            [0, 1, 2, 3].map(|i| f32::from_bits(word(bytes, i)));
        Self { difference_squared, current_squared, previous_squared, dot }
    }
}

/// A key as `epilogue.cu` makes it; zero is that of a row without any number.
impl Reported for LargestOutput {
    const BYTES: usize = 8;

    fn from_bytes(bytes: &[u8]) -> Self {
        const SIGN: u32 = 1 << 31;
        let [index, ordered] = [0, 1].map(|i| word(bytes, i));
        if (index, ordered) == (0, 0) {
            return Self { output: 0, value: f32::NAN };
        }
        let bits = if ordered & SIGN == 0 { !ordered } else { ordered ^ SIGN };
        Self { output: !index, value: f32::from_bits(bits) }
    }
}

/// The i-th word; the lowest byte comes first, as on every device.
fn word(bytes: &[u8], i: usize) -> u32 {
    let (words, _) = bytes.as_chunks();
    u32::from_le_bytes(words[i])
}
