use std::time::Duration;

use tokio::time::Instant;

/// The first suspension lasts this long, and each in a row twice as long as the one before.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Suspends a worker whose heart beats while it fails at requests.
#[derive(Debug)]
pub(super) struct Breaker {
    /// In a row.
    failures: u32,
    limit: u32,
    suspension: Option<Suspension>,
}

#[derive(Debug)]
struct Suspension {
    until: Instant,
    /// How long it is, before jitter.
    length: Duration,
    /// A request finds out whether it may end.
    trial: bool,
}

impl Breaker {
    /// Suspends after `limit` failures in a row.
    pub(super) fn new(limit: u32) -> Self {
        Self { failures: 0, limit, suspension: None }
    }

    /// Whether a request may be sent now.
    pub(super) fn allows(&self, now: Instant) -> bool {
        self.suspension.as_ref().is_none_or(|suspension| now >= suspension.until && !suspension.trial)
    }

    /// A request is sent; whether it is the one on trial.
    pub(super) fn begin(&mut self) -> bool {
        let Some(suspension) = &mut self.suspension else { return false };
        suspension.trial = true;
        true
    }

    /// A request got its first event.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.suspension = None;
    }

    /// A request failed. `jitter` makes a length of time a bit longer or shorter.
    pub(super) fn failed(&mut self, now: Instant, jitter: impl FnOnce(Duration) -> Duration) {
        let length = match &self.suspension {
            // Sent before the suspension.
            Some(suspension) if now < suspension.until => return,
            Some(suspension) => (suspension.length * 2).min(LONGEST),
            None => {
                self.failures += 1;
                if self.failures < self.limit {
                    return;
                }
                SHORTEST
            }
        };
        self.suspension = Some(Suspension { until: now + jitter(length), length, trial: false });
    }

    /// The request on trial ended, by whatever. Without a verdict another one takes its place.
    pub(super) fn trial_ended(&mut self) {
        if let Some(suspension) = &mut self.suspension {
            suspension.trial = false;
        }
    }

    /// The worker introduced itself anew: the trial need not wait.
    pub(super) fn introduced(&mut self, now: Instant) {
        if let Some(suspension) = &mut self.suspension {
            suspension.until = suspension.until.min(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(3);
        for _ in 0..3 {
            assert!(breaker.allows(now) && !breaker.begin());
            breaker.failed(now, |length| length);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_suspend_and_a_success_between_them_does_not() {
        let now = Instant::now();
        let mut breaker = Breaker::new(3);
        for _ in 0..10 {
            breaker.failed(now, |length| length);
            breaker.failed(now, |length| length);
            breaker.succeeded();
        }
        assert!(breaker.allows(now));
        assert!(!opened(now).allows(now));
    }

    #[test]
    fn one_trial_decides_and_each_suspension_is_longer() {
        let start = Instant::now();
        let mut breaker = opened(start);
        assert!(!breaker.allows(start + Duration::from_millis(999)));
        let mut now = start + SHORTEST;
        for seconds in [2, 4, 8, 16, 30, 30] {
            assert!(breaker.allows(now) && breaker.begin());
            assert!(!breaker.allows(now), "one trial at a time");
            breaker.failed(now, |length| length);
            breaker.trial_ended();
            assert!(!breaker.allows(now + Duration::from_secs(seconds) - Duration::from_millis(1)));
            now += Duration::from_secs(seconds);
        }
        assert!(breaker.begin());
        breaker.succeeded();
        breaker.trial_ended();
        assert!(breaker.allows(now) && !breaker.begin());
    }

    #[test]
    fn a_trial_without_a_verdict_makes_room_for_another() {
        let start = Instant::now();
        let mut breaker = opened(start);
        let now = start + SHORTEST;
        assert!(breaker.begin());
        breaker.trial_ended();
        assert!(breaker.allows(now));
    }

    #[test]
    fn what_was_sent_before_the_suspension_does_not_lengthen_it() {
        let start = Instant::now();
        let mut breaker = opened(start);
        breaker.failed(start + Duration::from_millis(900), |length| length);
        assert!(breaker.allows(start + SHORTEST));
    }
}
