use std::fmt::{self, Display, Formatter};

use serde::Serialize;

/// Where half and where 99 of 100 of some milliseconds are below, and the largest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Quantiles {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

impl Quantiles {
    /// Zeros where there is nothing.
    pub(super) fn of(mut values_ms: Vec<f64>) -> Self {
        values_ms.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let last = values_ms.len().saturating_sub(1);
            values_ms.get((last as f64 * part).round() as usize).copied().unwrap_or_default()
        };
        Self { p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
    }

    /// Each less the other's.
    pub(super) fn above(self, other: Self) -> Self {
        Self {
            p50_ms: self.p50_ms - other.p50_ms,
            p99_ms: self.p99_ms - other.p99_ms,
            max_ms: self.max_ms - other.max_ms,
        }
    }

    /// The median of each.
    pub(super) fn median(all: impl Iterator<Item = Self> + Clone) -> Self {
        Self {
            p50_ms: median(all.clone().map(|one| one.p50_ms)),
            p99_ms: median(all.clone().map(|one| one.p99_ms)),
            max_ms: median(all.map(|one| one.max_ms)),
        }
    }
}

impl Display for Quantiles {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.2} / {:.2} / {:.2}", self.p50_ms, self.p99_ms, self.max_ms)
    }
}

/// The middle value, the upper one of two; zero where there is none.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let quantiles = Quantiles::of((0..=100).rev().map(f64::from).collect());
        assert_eq!(quantiles, Quantiles { p50_ms: 50.0, p99_ms: 99.0, max_ms: 100.0 });
        assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
    }
}
