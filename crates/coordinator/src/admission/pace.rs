use std::time::Duration;

use tokio::time::Instant;

/// How much one end counts against those before.
const WEIGHT: f64 = 1.0 / 16.0;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// How long a place to run is kept, from those that were given back and those that are held now.
#[derive(Debug)]
pub(super) struct Pace {
    /// Seconds that a sequence ran lately; `None` before the first ended.
    mean: Option<f64>,
    origin: Instant,
    running: u32,
    /// Seconds from `origin` to each running sequence's begin, in all.
    begins: f64,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { mean: None, origin: Instant::now(), running: 0, begins: 0.0 }
    }

    pub(super) fn running(&self) -> u32 {
        self.running
    }

    pub(super) fn began(&mut self, now: Instant, sequences: u32) {
        self.running += sequences;
        self.begins += self.at(now) * f64::from(sequences);
    }

    /// Sequences that began at `began` gave their places back.
    pub(super) fn ended(&mut self, began: Instant, now: Instant, sequences: u32) {
        self.running -= sequences;
        self.begins -= self.at(began) * f64::from(sequences);
        if self.running == 0 {
            // Rounding must not add up.
            self.begins = 0.0;
        }
        for _ in 0..sequences {
            let ran = (now - began).as_secs_f64();
            self.mean = Some(self.mean.map_or(ran, |mean| mean + WEIGHT * (ran - mean)));
        }
    }

    /// When as many more sequences will have got one of `places`, in whole seconds: a second at least, a minute at most.
    ///
    /// Those that run have run for as long as they have, whatever the ones before them took.
    pub(super) fn wait_for(&self, now: Instant, sequences: u64, places: u32) -> Duration {
        let running = f64::from(self.running.max(1));
        let age = self.at(now) - self.begins / running;
        let held = if self.running == 0 { 0.0 } else { age }.max(self.mean.unwrap_or_default());
        let seconds = held * sequences as f64 / f64::from(places.max(1));
        Duration::from_secs(seconds.ceil().min(LONGEST.as_secs_f64()) as u64).max(SHORTEST)
    }

    fn at(&self, instant: Instant) -> f64 {
        instant.saturating_duration_since(self.origin).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_follows_how_long_places_are_kept() {
        let start = Instant::now();
        let mut pace = Pace::new();
        assert_eq!(pace.wait_for(start, 100, 4), SHORTEST);
        pace.began(start, 4);
        for _ in 0..100 {
            pace.began(start, 1);
            pace.ended(start, start + seconds(8), 1);
        }
        // Four places, each free again after 8 s.
        assert_eq!(pace.wait_for(start + seconds(1), 4, 4), seconds(8));
        assert_eq!(pace.wait_for(start + seconds(1), 10, 4), seconds(20));
        assert_eq!(pace.wait_for(start + seconds(1), 1000, 4), LONGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_already_for_long_counts_though_nothing_ended_or_only_short_ones_did() {
        let start = Instant::now();
        let mut pace = Pace::new();
        pace.began(start, 2);
        assert_eq!(pace.wait_for(start + seconds(20), 2, 2), seconds(20));
        pace.began(start, 1);
        pace.ended(start, start + Duration::from_millis(10), 1);
        assert_eq!(pace.wait_for(start + seconds(20), 1, 2), seconds(10));
        pace.ended(start, start + seconds(20), 2);
        assert_eq!(pace.running(), 0);
    }
}
