//! How fast each kind of work can go: the best rate measured, by how many rows shared a launch.

use std::collections::BTreeMap;

use serde::Serialize;

use super::work::{PerWork, Work};

/// Launches that a bucket must have for its median to count.
pub(super) const LEAST_LAUNCHES: usize = 8;

/// Seconds of launches of one kind, by rows: a bucket's key is its largest row count, a power of two, and it reaches down
/// to the one below.
#[derive(Debug, Default)]
struct Samples {
    seconds_per_row: BTreeMap<u32, Vec<f64>>,
}

/// Seconds of all launches of a measurement.
#[derive(Debug, Default)]
pub(super) struct Rates(PerWork<Samples>);

/// The best rate of one kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct BestRate {
    pub(super) seconds_per_row: f64,
    /// Launches of up to this many rows, and more than half as many, had it.
    pub(super) rows: u32,
    /// How many launches that were.
    pub(super) launches: usize,
}

impl Rates {
    /// Counts a launch of `rows` rows, at least one.
    pub(super) fn observe(&mut self, work: Work, rows: u32, seconds: f64) {
        let bucket = self.0.get_mut(work).seconds_per_row.entry(rows.next_power_of_two()).or_default();
        bucket.push(seconds / f64::from(rows));
    }

    /// The best rate of each kind; none for a kind that no launch was of.
    pub(super) fn best(&self) -> PerWork<Option<BestRate>> {
        self.0.map(Samples::best)
    }
}

impl Samples {
    /// The smallest median of a bucket with enough launches; where none has enough, the median of that with most.
    fn best(&self) -> Option<BestRate> {
        let rate = |(&rows, samples): (&u32, &Vec<f64>)| BestRate {
            seconds_per_row: median(samples),
            rows,
            launches: samples.len(),
        };
        let counting = self.seconds_per_row.iter().filter(|(_, samples)| samples.len() >= LEAST_LAUNCHES);
        counting
            .map(rate)
            .min_by(|a, b| a.seconds_per_row.total_cmp(&b.seconds_per_row))
            .or_else(|| self.seconds_per_row.iter().max_by_key(|(_, samples)| samples.len()).map(rate))
    }
}

/// The middle value, the upper one of two.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::work::{Part, RowKind};

    const CORE: Work = Work { rows: RowKind::Generated, part: Part::Core };

    fn rates(launches: &[(usize, u32, f64)]) -> Rates {
        let mut rates = Rates::default();
        for &(count, rows, seconds) in launches {
            (0..count).for_each(|_| rates.observe(CORE, rows, seconds));
        }
        rates
    }

    #[test]
    fn the_best_rate_is_the_smallest_median_of_a_bucket_with_enough_launches() {
        // Per row: 1 s alone; 0.5 s for 3 or 4 rows, with one launch that was disturbed; 0.25 s for 8, which ran once.
        let rates = rates(&[(9, 1, 1.0), (6, 3, 1.5), (6, 4, 2.0), (1, 4, 99.0), (1, 8, 2.0)]);
        let expected = BestRate { seconds_per_row: 0.5, rows: 4, launches: 13 };
        assert_eq!(*rates.best().get(CORE), Some(expected));
        assert_eq!(rates.best().prompt.core, None);
    }

    #[test]
    fn where_no_bucket_has_enough_launches_the_fullest_counts() {
        let rates = rates(&[(2, 1, 1.0), (1, 2, 1.0)]);
        let expected = BestRate { seconds_per_row: 1.0, rows: 1, launches: 2 };
        assert_eq!(*rates.best().get(CORE), Some(expected));
    }

    #[test]
    fn a_bucket_reaches_from_above_one_power_of_two_to_the_next() {
        let buckets: Vec<u32> = (1..=9).map(|rows: u32| rows.next_power_of_two()).collect();
        assert_eq!(buckets, [1, 2, 4, 4, 8, 8, 8, 8, 16]);
    }
}
