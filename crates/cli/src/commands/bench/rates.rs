//! How fast each kind of work can go: the best rate measured, by how many rows shared a launch.

use std::collections::BTreeMap;

use serde::Serialize;

use super::work::{Part, PerPart, PerWork, RowKind, Work};

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
pub(super) struct Rates {
    all: PerPart<Samples>,
    own: PerWork<Samples>,
}

/// The best rates of a measurement; none for what no launch was of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct BestRates {
    /// Of each part of the model, over all launches.
    pub(super) all: PerPart<Option<BestRate>>,
    /// Of prompts and of generated tokens each, over the launches of ticks that had the one and not the other.
    pub(super) own: PerWork<Option<BestRate>>,
}

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
    /// Counts a launch of `rows` rows, at least one, of `kind` where they were all of one.
    pub(super) fn observe(&mut self, part: Part, kind: Option<RowKind>, rows: u32, seconds: f64) {
        self.all.get_mut(part).observe(rows, seconds);
        if let Some(kind) = kind {
            self.own.get_mut(Work { rows: kind, part }).observe(rows, seconds);
        }
    }

    pub(super) fn best(&self) -> BestRates {
        BestRates { all: self.all.map(Samples::best), own: self.own.map(Samples::best) }
    }
}

impl BestRates {
    /// Seconds per row of each part of the model, whatever the rows; 0 for what no launch was of.
    pub(super) fn per_part(&self) -> PerWork<f64> {
        let rates = self.all.map(seconds_per_row);
        PerWork { prompt: rates, generated: rates }
    }

    /// Seconds per row of each kind of work; 0 for what no launch was of.
    pub(super) fn per_work(&self) -> PerWork<f64> {
        self.own.map(seconds_per_row)
    }
}

fn seconds_per_row(best: &Option<BestRate>) -> f64 {
    best.map_or(0.0, |best| best.seconds_per_row)
}

impl Samples {
    fn observe(&mut self, rows: u32, seconds: f64) {
        let bucket = self.seconds_per_row.entry(rows.next_power_of_two()).or_default();
        bucket.push(seconds / f64::from(rows));
    }

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
    fn rates(launches: &[(usize, u32, f64)]) -> Rates {
        let mut rates = Rates::default();
        for &(count, rows, seconds) in launches {
            (0..count).for_each(|_| rates.observe(Part::Core, None, rows, seconds));
        }
        rates
    }

    #[test]
    fn the_best_rate_is_the_smallest_median_of_a_bucket_with_enough_launches() {
        // Per row: 1 s alone; 0.5 s for 3 or 4 rows, with one launch that was disturbed; 0.25 s for 8, which ran once.
        let rates = rates(&[(9, 1, 1.0), (6, 3, 1.5), (6, 4, 2.0), (1, 4, 99.0), (1, 8, 2.0)]);
        let expected = BestRate { seconds_per_row: 0.5, rows: 4, launches: 13 };
        assert_eq!(rates.best().all.core, Some(expected));
        assert_eq!(rates.best().own.generated.core, None);
    }

    #[test]
    fn where_no_bucket_has_enough_launches_the_fullest_counts() {
        let rates = rates(&[(2, 1, 1.0), (1, 2, 1.0)]);
        let expected = BestRate { seconds_per_row: 1.0, rows: 1, launches: 2 };
        assert_eq!(rates.best().all.core, Some(expected));
    }

    #[test]
    fn rows_of_one_kind_have_a_rate_of_their_own_besides() {
        let mut rates = Rates::default();
        for (kind, seconds) in [(Some(RowKind::Prompt), 1.0), (Some(RowKind::Generated), 3.0), (None, 2.0)] {
            (0..9).for_each(|_| rates.observe(Part::Coda, kind, 1, seconds));
        }
        let best = rates.best();
        assert_eq!((best.per_work().prompt.coda, best.per_work().generated.coda), (1.0, 3.0));
        assert_eq!((best.per_part().prompt.coda, best.per_part().generated.coda), (2.0, 2.0));
        assert_eq!(best.per_part().generated.prelude, 0.0);
    }

    #[test]
    fn a_bucket_reaches_from_above_one_power_of_two_to_the_next() {
        let buckets: Vec<u32> = (1..=9).map(|rows: u32| rows.next_power_of_two()).collect();
        assert_eq!(buckets, [1, 2, 4, 4, 8, 8, 8, 8, 16]);
    }
}
