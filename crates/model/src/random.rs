//! A counter-based generator: what is drawn depends on the key and the counter, never on what was drawn before.
//!
//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

/// What a number is drawn for. Streams never share numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Initial latents.
    Latent,
    /// The sampler.
    Sampling,
    /// Weights of a model without a checkpoint.
    Weights,
    /// Exit depths of a measurement.
    Depths,
}

/// Four words for (seed, stream, position, index).
pub fn draw(seed: u64, stream: Stream, position: u32, index: u32) -> [u32; 4] {
    philox([index, position, stream as u32, 0], [seed as u32, (seed >> 32) as u32])
}

/// What [`draw`] gives for `index`, `index + 1` and so on, word by word; side by side, which is faster.
pub fn draws<const N: usize>(seed: u64, stream: Stream, position: u32, index: u32) -> [[u32; N]; 4] {
    let (mut a, mut b, mut c, mut d) = ([0; N], [position; N], [stream as u32; N], [0; N]);
    for (i, a) in a.iter_mut().enumerate() {
        *a = index.wrapping_add(i as u32);
    }
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        for i in 0..N {
            [a[i], b[i], c[i], d[i]] = round([a[i], b[i], c[i], d[i]], key);
        }
        key = next_key(key);
    }
    [a, b, c, d]
}

/// A number in (0, 1) from two words, never 0 and never 1.
pub fn uniform(high: u32, low: u32) -> f64 {
    let bits = (u64::from(high) << 32 | u64::from(low)) >> 12;
    (bits as f64 + 0.5) / (1_u64 << 52) as f64
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        counter = round(counter, key);
        key = next_key(key);
    }
    counter
}

#[inline(always)]
fn round(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let a = u64::from(counter[0]) * 0xd251_1f53;
    let b = u64::from(counter[2]) * 0xcd9e_8d57;
    [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32]
}

#[inline(always)]
fn next_key(key: [u32; 2]) -> [u32; 2] {
    [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let expected = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
        assert_eq!(philox(counter, [0xa409_3822, 0x299f_31d0]), expected);
    }

    #[test]
    fn draws_side_by_side_are_the_same() {
        let words = draws::<7>(0x1234_5678_9abc_def0, Stream::Sampling, 9, u32::MAX - 2);
        for i in 0..7 {
            let index = (u32::MAX - 2).wrapping_add(i as u32);
            assert_eq!(words.map(|word| word[i]), draw(0x1234_5678_9abc_def0, Stream::Sampling, 9, index));
        }
    }

    #[test]
    fn uniform_stays_inside_its_open_interval() {
        assert!(uniform(0, 0) > 0.0);
        assert!(uniform(u32::MAX, u32::MAX) < 1.0);
    }
}
