use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::Demand;
use super::pace::Pace;
use crate::locks::lock;
use crate::metrics;

/// How much may run and wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    /// Sequences that run side by side.
    pub(crate) running_sequences: u32,
    /// Requests that wait.
    pub(crate) queued_requests: u32,
    /// Core iterations that the waiting requests are expected to take in all.
    pub(crate) queued_core_iterations: Option<u64>,
    /// How long a request waits at most.
    pub(crate) timeout: Duration,
}

/// Why a request may not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueueError {
    #[error("{what}: try again later")]
    Full { what: String, retry_after: Duration },
    #[error("the request waited for {waited:?} and could not begin: try again later")]
    TimedOut { waited: Duration, retry_after: Duration },
    #[error(
        "the time allowed for the answer passed while the request waited to begin: allow more, or try again later"
    )]
    Late,
}

/// A line in front of the server: higher priorities first, and among equals who came first. Nobody overtakes the first in
/// line, however small, so nothing starves among equals.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: QueueLimits,
    line: Mutex<Line>,
}

/// Higher priorities come first.
type Place = (Reverse<i32>, u64);

#[derive(Debug, Default)]
struct Line {
    running_sequences: u32,
    waiting: BTreeMap<Place, Waiting>,
    core_iterations: u64,
    next: u64,
    pace: Pace,
}

#[derive(Debug)]
struct Waiting {
    demand: Demand,
    admitted: oneshot::Sender<()>,
}

/// The right to run, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    queue: Arc<Queue>,
    sequences: u32,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut line = lock(&self.queue.line);
        line.running_sequences -= self.sequences;
        line.pace.ended(Instant::now(), self.sequences);
        self.queue.advance(&mut line);
    }
}

/// A place in the line, given up when dropped.
struct InLine<'a> {
    queue: &'a Arc<Queue>,
    place: Place,
    sequences: u32,
    /// Its admission was noticed, and a permit says so.
    is_settled: bool,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        let mut line = lock(&self.queue.line);
        if line.leave(self.place).is_none() {
            // It was admitted and its client left at the same time.
            line.running_sequences -= self.sequences;
        }
        self.queue.advance(&mut line);
    }
}

impl Queue {
    pub(crate) fn new(limits: QueueLimits) -> Arc<Self> {
        Arc::new(Self { limits, line: Mutex::default() })
    }

    pub(crate) fn limits(&self) -> &QueueLimits {
        &self.limits
    }

    /// Refuses at once what [`Self::admit`] would refuse because of the number of requests alone.
    pub(crate) fn expect_room(&self, sequences: u32) -> Result<(), QueueError> {
        let line = lock(&self.line);
        let can_run = line.waiting.is_empty() && self.fits(&line, sequences);
        if can_run || line.waiting.len() < self.limits.queued_requests as usize {
            return Ok(());
        }
        Err(self.full(&line, sequences))
    }

    /// Waits until the request may run.
    pub(crate) async fn admit(self: &Arc<Self>, demand: Demand) -> Result<Permit, QueueError> {
        let began = Instant::now();
        let (mut in_line, mut admitted) = self.stand_in_line(demand)?;
        let patience = began + self.limits.timeout;
        let until = demand.deadline.map_or(patience, |deadline| deadline.min(patience));
        tokio::select! {
            biased;
            _ = &mut admitted => {}
            () = sleep_until(until) => {
                if until < patience {
                    return Err(QueueError::Late);
                }
                let retry_after = self.retry_after(&lock(&self.line), demand.sequences);
                return Err(QueueError::TimedOut { waited: self.limits.timeout, retry_after });
            }
        }
        metrics::queue_wait(began.elapsed());
        in_line.is_settled = true;
        Ok(Permit { queue: Arc::clone(self), sequences: demand.sequences })
    }

    fn stand_in_line(
        self: &Arc<Self>,
        demand: Demand,
    ) -> Result<(InLine<'_>, oneshot::Receiver<()>), QueueError> {
        let mut line = lock(&self.line);
        let place = (Reverse(demand.priority), line.next);
        let is_first = line.waiting.first_key_value().is_none_or(|(first, _)| place < *first);
        if !(is_first && self.fits(&line, demand.sequences)) {
            self.may_wait(&line, demand)?;
        }
        let (sender, admitted) = oneshot::channel();
        line.next += 1;
        line.core_iterations = line.core_iterations.saturating_add(demand.core_iterations);
        line.waiting.insert(place, Waiting { demand, admitted: sender });
        self.advance(&mut line);
        Ok((InLine { queue: self, place, sequences: demand.sequences, is_settled: false }, admitted))
    }

    fn may_wait(&self, line: &Line, demand: Demand) -> Result<(), QueueError> {
        let limit = self.limits.queued_core_iterations.unwrap_or(u64::MAX);
        let has_room = line.waiting.len() < self.limits.queued_requests as usize
            && line.core_iterations.saturating_add(demand.core_iterations) <= limit;
        if has_room { Ok(()) } else { Err(self.full(line, demand.sequences)) }
    }

    /// Admits from the front of the line whoever fits.
    fn advance(&self, line: &mut Line) {
        while let Some((place, first)) = line.waiting.first_key_value() {
            let (place, sequences) = (*place, first.demand.sequences);
            if !self.fits(line, sequences) {
                break;
            }
            line.running_sequences += sequences;
            if let Some(first) = line.leave(place) {
                // Whoever left meanwhile gives it back: see `InLine`.
                let _ = first.admitted.send(());
            }
        }
        metrics::queue(line.waiting.len(), line.core_iterations);
    }

    fn fits(&self, line: &Line, sequences: u32) -> bool {
        line.running_sequences.saturating_add(sequences) <= self.limits.running_sequences
    }

    fn full(&self, line: &Line, sequences: u32) -> QueueError {
        let (running, waiting) = (line.running_sequences, line.waiting.len());
        let what = format!("the server generates {running} sequences and {waiting} requests wait");
        QueueError::Full { what, retry_after: self.retry_after(line, sequences) }
    }

    /// When there may be room, at the pace of late: all that wait come first.
    fn retry_after(&self, line: &Line, sequences: u32) -> Duration {
        let waiting: u64 = line.waiting.values().map(|waiting| u64::from(waiting.demand.sequences)).sum();
        line.pace.wait_for(Instant::now(), waiting + u64::from(sequences))
    }
}

impl Line {
    fn leave(&mut self, place: Place) -> Option<Waiting> {
        let waiting = self.waiting.remove(&place)?;
        self.core_iterations = self.core_iterations.saturating_sub(waiting.demand.core_iterations);
        Some(waiting)
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
