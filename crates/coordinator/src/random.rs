//! Randomness without any claim to secrecy: seeds, identifiers, jitter.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// A number that no earlier call returned, in all likelihood.
pub(crate) fn random_u64() -> u64 {
    RandomState::new().hash_one(std::time::Instant::now())
}

/// A sampler seed. It and the seeds of its choices stay below 2^53, up to which JavaScript's numbers are exact.
pub(crate) fn random_seed() -> u64 {
    random_u64() >> 12
}

/// A sequence of numbers that its seed decides (SplitMix64).
#[derive(Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `limit`, which is above 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        // The highest bits of the product: no remainder that would prefer small numbers visibly.
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }

    /// From half the duration up to one and a half.
    pub(crate) fn jittered(&mut self, duration: Duration) -> Duration {
        duration.mul_f64(0.5 + self.next() as f64 / u64::MAX as f64)
    }
}

/// Spreads the bits of a number, each over all (the end of SplitMix64).
pub(crate) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_numbers_and_limits_hold() {
        let (mut one, mut other) = (Random::new(7), Random::new(7));
        let mut seen = [false; 3];
        for _ in 0..100 {
            let number = one.below(3);
            assert_eq!(number, other.below(3));
            seen[number] = true;
            let pause = one.jittered(Duration::from_secs(2));
            assert_eq!(pause, other.jittered(Duration::from_secs(2)));
            assert!((1.0..=3.0).contains(&pause.as_secs_f64()));
        }
        assert_eq!(seen, [true; 3]);
    }
}
