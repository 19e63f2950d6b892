//! Which worker gets a request: the one that owes the fewest core iterations.
//!
//! Core iterations, not requests, are what a worker's time goes to: a request's cost is its positions times the depth
//! they are expected to reach.

use std::collections::HashMap;

/// After this many tokens the mean follows the newer ones.
const MEAN_TOKENS: f64 = 10_000.0;

/// Core iterations a request is expected to take.
pub(crate) fn cost(prompt_tokens: usize, max_tokens: u32, expected_depth: f64) -> u64 {
    let positions = prompt_tokens as f64 + f64::from(max_tokens);
    (positions * expected_depth).ceil() as u64
}

/// Indices of workers by the core iterations they owe, fewest first; equal ones take turns at being first.
pub(crate) fn by_least_work(work: &[u64], turn: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..work.len()).collect();
    if !order.is_empty() {
        order.rotate_left(turn % work.len());
    }
    order.sort_by_key(|index| work[*index]);
    order
}

/// What one worker owes: what it last reported, and what was sent to it since.
#[derive(Debug, Default)]
pub(crate) struct Work {
    reported: u64,
    recent: HashMap<u64, u64>,
    next: u64,
}

impl Work {
    /// Adds a request; returns the ticket under which it ends.
    pub(crate) fn begin(&mut self, cost: u64) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.recent.insert(ticket, cost);
        ticket
    }

    /// Takes a request off, unless a report already includes it.
    pub(crate) fn end(&mut self, ticket: u64) {
        self.recent.remove(&ticket);
    }

    /// The tickets given out so far: what a report asked for now will include.
    pub(crate) fn mark(&self) -> u64 {
        self.next
    }

    /// Takes a report that was asked for at `mark`.
    pub(crate) fn report(&mut self, mark: u64, queued_core_iterations: u64) {
        self.reported = queued_core_iterations;
        self.recent.retain(|ticket, _| *ticket >= mark);
    }

    /// Core iterations owed, as far as is known.
    pub(crate) fn owed(&self) -> u64 {
        self.recent.values().fold(self.reported, |sum, cost| sum.saturating_add(*cost))
    }
}

/// Mean depth at which tokens stopped, by the maximum of their adaptive policy.
#[derive(Debug, Default)]
pub(crate) struct DepthEstimates {
    means: HashMap<u32, Mean>,
}

#[derive(Debug)]
struct Mean {
    value: f64,
    weight: f64,
}

impl DepthEstimates {
    /// The mean so far; `max` itself before the first token.
    pub(crate) fn expected(&self, max: u32) -> f64 {
        self.means.get(&max).map_or(f64::from(max), |mean| mean.value)
    }

    /// Takes note of `tokens` tokens that took `core_iterations` in all.
    pub(crate) fn observe(&mut self, max: u32, tokens: u32, core_iterations: u64) {
        if tokens == 0 {
            return;
        }
        let mean = self.means.entry(max).or_insert(Mean { value: f64::from(max), weight: 1.0 });
        let tokens = f64::from(tokens);
        mean.value = (mean.value * mean.weight + core_iterations as f64) / (mean.weight + tokens);
        mean.weight = (mean.weight + tokens).min(MEAN_TOKENS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_with_least_work_comes_first_and_all_come_once() {
        assert_eq!(by_least_work(&[30, 10, 20], 7), [1, 2, 0]);
        assert!(by_least_work(&[], 3).is_empty());
    }

    #[test]
    fn equal_workers_take_turns() {
        let first = |turn| by_least_work(&[5, 5, 9, 5], turn)[0];
        let mut seen: Vec<_> = (0..4).map(first).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 3]);
    }

    #[test]
    fn cost_is_positions_times_depth() {
        assert_eq!(cost(10, 6, 2.5), 40);
    }

    #[test]
    fn work_counts_until_it_ends_or_is_reported() {
        let mut work = Work::default();
        let first = work.begin(100);
        let mark = work.mark();
        let second = work.begin(10);
        assert_eq!(work.owed(), 110);
        work.report(mark, 90);
        assert_eq!(work.owed(), 100, "the report includes the first request and not the second");
        work.end(first);
        assert_eq!(work.owed(), 100, "a reported request ends with the next report");
        work.end(second);
        assert_eq!(work.owed(), 90);
    }

    #[test]
    fn expected_depth_starts_at_the_maximum_and_approaches_what_is_seen() {
        let mut depths = DepthEstimates::default();
        assert_eq!(depths.expected(32), 32.0);
        depths.observe(32, 31, 31 * 8);
        assert_eq!(depths.expected(32), (32.0 + 31.0 * 8.0) / 32.0);
        depths.observe(32, 1_000_000, 4_000_000);
        assert!((depths.expected(32) - 4.0).abs() < 0.1);
        assert_eq!(depths.expected(16), 16.0, "each maximum is learned by itself");
    }
}
