use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses between attempts: each twice as long as the one before, up to a limit, times 0.5 to 1.5.
#[derive(Debug)]
pub(crate) struct Backoff {
    salt: u64,
    attempts: u32,
}

impl Backoff {
    /// Different salts pause differently, so that not all come at once.
    pub(crate) fn new(salt: u64) -> Self {
        Self { salt, attempts: 0 }
    }

    pub(crate) async fn pause(&mut self) {
        let pause = self.next();
        tokio::time::sleep(pause).await;
    }

    fn next(&mut self) -> Duration {
        let pause = (FIRST * 2_u32.pow(self.attempts.min(10))).min(LONGEST);
        self.attempts += 1;
        let random = xxh3_64_with_seed(&self.attempts.to_le_bytes(), self.salt);
        pause.mul_f64(0.5 + random as f64 / u64::MAX as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        let mut backoff = Backoff::new(7);
        assert!(backoff.next() <= FIRST.mul_f64(1.5));
        let later: Vec<_> = (0..50).map(|_| backoff.next()).collect();
        assert!(later[49] >= LONGEST / 2 && later.iter().all(|pause| *pause <= LONGEST.mul_f64(1.5)));
    }
}
