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
    /// The metrics are this line's; of several lines one has them.
    pub(crate) has_metrics: bool,
}

/// Why a request may not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueueError {
    #[error("{what}: try again later")]
    Full { what: String, retry_after: Duration },
    #[error("requests of higher priority took all places in line: try again later")]
    Displaced { retry_after: Duration },
    #[error("the request waited for {waited:?} and could not begin: try again later")]
    TimedOut { waited: Duration, retry_after: Duration },
    #[error(
        "the time allowed for the answer passed while the request waited to begin: allow more, or try again later"
    )]
    Late,
}

impl QueueError {
    /// The label of the metrics.
    fn name(&self) -> &'static str {
        match self {
            Self::Full { .. } => "full",
            Self::Displaced { .. } => "displaced",
            Self::TimedOut { .. } => "timeout",
            Self::Late => "deadline",
        }
    }
}

/// A line in front of the server: higher priorities first, and among equals who came first. Nobody overtakes the first in
/// line, however small, so nothing starves among equals. Where the line is full, whoever comes takes the place of the last in
/// line if that has a lower priority.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: QueueLimits,
    line: Mutex<Line>,
}

/// Higher priorities come first.
type Place = (Reverse<i32>, u64);

#[derive(Debug)]
struct Line {
    waiting: BTreeMap<Place, Waiting>,
    core_iterations: u64,
    next: u64,
    pace: Pace,
}

#[derive(Debug)]
struct Waiting {
    demand: Demand,
    verdict: oneshot::Sender<Verdict>,
}

/// Since when who waited runs. An admission is counted as running until someone gives it back.
type Verdict = Result<Instant, QueueError>;

/// The right to run, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    queue: Arc<Queue>,
    sequences: u32,
    began: Instant,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut line = lock(&self.queue.line);
        line.pace.ended(self.began, Instant::now(), self.sequences);
        self.queue.advance(&mut line);
    }
}

/// A place in the line, given up when dropped.
struct InLine<'a> {
    queue: &'a Arc<Queue>,
    place: Place,
    sequences: u32,
    verdict: oneshot::Receiver<Verdict>,
    /// Its admission was noticed, and a permit says so.
    is_settled: bool,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        let mut line = lock(&self.queue.line);
        if line.leave(self.place).is_none()
            && let Ok(Ok(began)) = self.verdict.try_recv()
        {
            // It was admitted and its client left at the same time.
            line.pace.ended(began, Instant::now(), self.sequences);
        }
        self.queue.advance(&mut line);
    }
}

impl Queue {
    pub(crate) fn new(limits: QueueLimits) -> Arc<Self> {
        let (waiting, core_iterations, next) = (BTreeMap::new(), 0, 0);
        let line = Line { waiting, core_iterations, next, pace: Pace::new() };
        Arc::new(Self { limits, line: Mutex::new(line) })
    }

    pub(crate) fn limits(&self) -> &QueueLimits {
        &self.limits
    }

    /// Refuses at once what [`Self::admit`] would refuse because of the number of requests alone.
    pub(crate) fn expect_room(&self, sequences: u32, priority: i32) -> Result<(), QueueError> {
        let line = lock(&self.line);
        let can_run = line.waiting.is_empty() && self.fits(&line, sequences);
        let has_room = line.waiting.len() < self.limits.queued_requests as usize;
        if can_run || has_room || line.has_lower(priority) {
            return Ok(());
        }
        Err(self.refused(Duration::ZERO, self.full(&line, sequences)))
    }

    /// Waits until the request may run.
    pub(crate) async fn admit(self: &Arc<Self>, demand: Demand) -> Result<Permit, QueueError> {
        let began = Instant::now();
        let admitted = self.wait(began, demand).await;
        let waited = began.elapsed();
        let began = admitted.map_err(|error| self.refused(waited, error))?;
        self.waited(waited, "admitted");
        Ok(Permit { queue: Arc::clone(self), sequences: demand.sequences, began })
    }

    /// Returns once the request counts as running.
    async fn wait(self: &Arc<Self>, began: Instant, demand: Demand) -> Verdict {
        let mut in_line = self.stand_in_line(demand)?;
        let patience = began + self.limits.timeout;
        let until = demand.deadline.map_or(patience, |deadline| deadline.min(patience));
        tokio::select! {
            biased;
            verdict = &mut in_line.verdict => {
                in_line.is_settled = true;
                // The sender is dropped only when the place is given up, which is done here.
                verdict.unwrap_or(Err(QueueError::Late))
            }
            () = sleep_until(until) => {
                if until < patience {
                    return Err(QueueError::Late);
                }
                let retry_after = self.retry_after(&lock(&self.line), demand.sequences);
                Err(QueueError::TimedOut { waited: self.limits.timeout, retry_after })
            }
        }
    }

    fn stand_in_line(self: &Arc<Self>, demand: Demand) -> Result<InLine<'_>, QueueError> {
        let mut line = lock(&self.line);
        let place = (Reverse(demand.priority), line.next);
        let is_first = line.waiting.first_key_value().is_none_or(|(first, _)| place < *first);
        if !(is_first && self.fits(&line, demand.sequences)) {
            self.make_room(&mut line, demand)?;
        }
        let (sender, verdict) = oneshot::channel();
        line.next += 1;
        line.core_iterations = line.core_iterations.saturating_add(demand.core_iterations);
        line.waiting.insert(place, Waiting { demand, verdict: sender });
        self.advance(&mut line);
        Ok(InLine { queue: self, place, sequences: demand.sequences, verdict, is_settled: false })
    }

    /// Sends away the last in line of lower priority until there is room, unless all of them together would not make it.
    fn make_room(&self, line: &mut Line, demand: Demand) -> Result<(), QueueError> {
        let most = self.limits.queued_core_iterations.unwrap_or(u64::MAX);
        let has_room = |requests: usize, core_iterations: u64| {
            requests < self.limits.queued_requests as usize
                && core_iterations.saturating_add(demand.core_iterations) <= most
        };
        let (mut requests, mut core_iterations) = (line.waiting.len(), line.core_iterations);
        let mut displaced = Vec::new();
        for (place, waiting) in line.waiting.iter().rev() {
            if has_room(requests, core_iterations) || waiting.demand.priority >= demand.priority {
                break;
            }
            displaced.push(*place);
            requests -= 1;
            core_iterations = core_iterations.saturating_sub(waiting.demand.core_iterations);
        }
        if !has_room(requests, core_iterations) {
            return Err(self.full(line, demand.sequences));
        }
        for place in displaced {
            let Some(waiting) = line.leave(place) else { continue };
            let retry_after = self.retry_after(line, waiting.demand.sequences);
            // Whoever left meanwhile need not be told.
            let _ = waiting.verdict.send(Err(QueueError::Displaced { retry_after }));
        }
        Ok(())
    }

    /// Admits from the front of the line whoever fits.
    fn advance(&self, line: &mut Line) {
        while let Some((place, first)) = line.waiting.first_key_value() {
            let (place, sequences) = (*place, first.demand.sequences);
            if !self.fits(line, sequences) {
                break;
            }
            if let Some(first) = line.leave(place) {
                let now = Instant::now();
                line.pace.began(now, sequences);
                // Whoever left meanwhile gives it back: see `InLine`.
                let _ = first.verdict.send(Ok(now));
            }
        }
        if self.limits.has_metrics {
            metrics::queue(line.waiting.len(), line.core_iterations);
        }
    }

    fn fits(&self, line: &Line, sequences: u32) -> bool {
        line.pace.running().saturating_add(sequences) <= self.limits.running_sequences
    }

    fn full(&self, line: &Line, sequences: u32) -> QueueError {
        let (running, waiting) = (line.pace.running(), line.waiting.len());
        let what = format!("the server generates {running} sequences and {waiting} requests wait");
        QueueError::Full { what, retry_after: self.retry_after(line, sequences) }
    }

    fn refused(&self, waited: Duration, error: QueueError) -> QueueError {
        self.waited(waited, error.name());
        error
    }

    fn waited(&self, waited: Duration, outcome: &'static str) {
        if self.limits.has_metrics {
            metrics::queue_wait(waited, outcome);
        }
    }

    /// When there may be room, at the pace of late: all that wait come first.
    fn retry_after(&self, line: &Line, sequences: u32) -> Duration {
        let waiting: u64 = line.waiting.values().map(|waiting| u64::from(waiting.demand.sequences)).sum();
        let places = self.limits.running_sequences;
        line.pace.wait_for(Instant::now(), waiting + u64::from(sequences), places)
    }
}

impl Line {
    /// Whether anyone in line has a lower priority than this.
    fn has_lower(&self, priority: i32) -> bool {
        self.waiting.last_key_value().is_some_and(|(_, last)| last.demand.priority < priority)
    }

    fn leave(&mut self, place: Place) -> Option<Waiting> {
        let waiting = self.waiting.remove(&place)?;
        self.core_iterations = self.core_iterations.saturating_sub(waiting.demand.core_iterations);
        Some(waiting)
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
