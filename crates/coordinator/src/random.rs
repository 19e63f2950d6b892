//! Randomness without any claim to secrecy: seeds, identifiers, jitter.

use std::hash::{BuildHasher, RandomState};

/// A number that no earlier call returned, in all likelihood.
pub(crate) fn random_u64() -> u64 {
    RandomState::new().hash_one(std::time::Instant::now())
}

/// A sampler seed. It and the seeds of its choices stay below 2^53, up to which JavaScript's numbers are exact.
pub(crate) fn random_seed() -> u64 {
    random_u64() >> 12
}

/// A number from 0.5 up to 1.5.
pub(crate) fn jitter() -> f64 {
    0.5 + random_u64() as f64 / u64::MAX as f64
}
