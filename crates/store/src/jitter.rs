use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(std::time::Instant::now()));
}

/// A number from 0.5 up to 1.5, so that those who failed together do not come back together.
pub fn jitter() -> f64 {
    // SplitMix64.
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let number = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    0.5 + (number ^ (number >> 31)) as f64 / u64::MAX as f64
}

/// Decides all that [`jitter`] gives in this thread from now on: for simulations, which are to be repeated.
pub fn seed_jitter(seed: u64) {
    STATE.set(seed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_jitter_within_its_limits() {
        let draw = |seed| {
            seed_jitter(seed);
            [(); 100].map(|()| jitter())
        };
        let first = draw(7);
        assert_eq!(first, draw(7));
        assert_ne!(first, draw(8));
        assert!(first.iter().all(|number| (0.5..=1.5).contains(number)));
        assert!(first.iter().any(|number| *number < 0.7) && first.iter().any(|number| *number > 1.3));
    }
}
