//! Time, as an argument.

use std::time::{Duration, Instant};

/// Tells the time since a fixed moment. It decides when launches are shared and when requests are late, never what an
/// answer is.
pub trait Clock: Send {
    /// Never goes back.
    fn now(&self) -> Duration;
}

/// The system's monotonic clock, from the moment it was made.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicClock(Instant);

impl MonotonicClock {
    /// A clock that starts at zero.
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
