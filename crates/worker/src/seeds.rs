//! Seeds for requests that bring none.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Draws sampler seeds: different ones in every process, and no two alike in sequence.
#[derive(Debug, Default)]
pub(crate) struct Seeds {
    /// Keyed at random by the standard library.
    hasher: RandomState,
    drawn: AtomicU64,
}

impl Seeds {
    pub(crate) fn draw(&self) -> u64 {
        self.hasher.hash_one(self.drawn.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ_within_a_process_and_between_processes() {
        let (here, there) = (Seeds::default(), Seeds::default());
        assert_ne!(here.draw(), here.draw());
        assert_ne!(here.draw(), there.draw());
    }
}
