use std::hash::{BuildHasher, RandomState};

/// A number from 0.5 up to 1.5, so that those who failed together do not come back together.
pub fn jitter() -> f64 {
    let random = RandomState::new().hash_one(std::time::Instant::now());
    0.5 + random as f64 / u64::MAX as f64
}
