use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Seeded randomness that a test's parts share.
#[derive(Debug)]
pub(crate) struct Dice(AtomicU64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A number below `below` (splitmix64).
    pub(crate) fn roll(&self, below: u64) -> u64 {
        let step = 0x9E37_79B9_7F4A_7C15_u64;
        let mut z = self.0.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    }

    /// Whether this happens, as it does in so many of a hundred cases.
    pub(crate) fn happens(&self, percent: u64) -> bool {
        self.roll(100) < percent
    }

    /// Waits for a while below `most_ms`.
    pub(crate) async fn wait(&self, most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.roll(most_ms))).await;
    }
}
