use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Ends that count.
const RECENT: usize = 64;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// How fast sequences end.
#[derive(Debug, Default)]
pub(super) struct Pace {
    ends: VecDeque<Instant>,
}

impl Pace {
    pub(super) fn ended(&mut self, now: Instant, sequences: u32) {
        for _ in 0..sequences.min(RECENT as u32) {
            if self.ends.len() == RECENT {
                self.ends.pop_front();
            }
            self.ends.push_back(now);
        }
    }

    /// When as many more sequences will have ended, in whole seconds: a second where nothing is known, a minute at most.
    pub(super) fn wait_for(&self, now: Instant, sequences: u64) -> Duration {
        let Some(first) = self.ends.front() else { return SHORTEST };
        let seconds = (now - *first).as_secs_f64() / self.ends.len() as f64 * sequences as f64;
        Duration::from_secs(seconds.ceil().min(LONGEST.as_secs_f64()) as u64).max(SHORTEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_follows_how_fast_sequences_ended_lately() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.wait_for(start, 100), SHORTEST);
        for second in 0..100 {
            pace.ended(start + Duration::from_secs(second), 1);
        }
        let now = start + Duration::from_secs(100);
        assert_eq!(pace.wait_for(now, 10), Duration::from_secs(10));
        assert_eq!(pace.wait_for(now, 1000), LONGEST);
        pace.ended(now, RECENT as u32);
        assert_eq!(pace.wait_for(now + Duration::from_millis(10), 10), SHORTEST);
    }
}
