//! What a launch costs per phase, learned while serving: a + b · rows, and by how many rows.

mod curve;

use crate::launch::{LaunchRecord, Phase};
use curve::Curve;

/// Weight of an observation after one more.
const DECAY: f64 = 0.995;

/// A line through (rows, seconds), older observations counting less.
#[derive(Debug, Default)]
struct LinearFit {
    weight: f64,
    rows: f64,
    seconds: f64,
    rows_squared: f64,
    rows_seconds: f64,
}

impl LinearFit {
    fn observe(&mut self, rows: f64, seconds: f64) {
        for sum in [
            &mut self.weight,
            &mut self.rows,
            &mut self.seconds,
            &mut self.rows_squared,
            &mut self.rows_seconds,
        ] {
            *sum *= DECAY;
        }
        self.weight += 1.0;
        self.rows += rows;
        self.seconds += seconds;
        self.rows_squared += rows * rows;
        self.rows_seconds += rows * seconds;
    }

    /// Seconds that a launch takes whatever its rows: a, between nothing and the mean. While all launches had as many
    /// rows, half the mean.
    fn fixed(&self) -> f64 {
        if self.weight == 0.0 {
            return 0.0;
        }
        let (mean_rows, mean_seconds) = (self.rows / self.weight, self.seconds / self.weight);
        let variance = self.rows_squared / self.weight - mean_rows * mean_rows;
        if variance < 1e-3 * mean_rows * mean_rows {
            return mean_seconds / 2.0;
        }
        let slope = (self.rows_seconds / self.weight - mean_rows * mean_seconds) / variance;
        (mean_seconds - slope * mean_rows).clamp(0.0, mean_seconds)
    }

    /// Seconds that a row more takes: b.
    fn per_row(&self) -> f64 {
        if self.rows == 0.0 { 0.0 } else { (self.seconds - self.weight * self.fixed()) / self.rows }
    }
}

/// What launches of one phase cost.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    fit: LinearFit,
    curve: Curve,
}

impl Cost {
    /// Seconds that a launch takes whatever its rows.
    pub(crate) fn fixed(&self) -> f64 {
        self.fit.fixed()
    }

    /// Seconds that a launch of so many rows takes, all of which decode.
    pub(crate) fn seconds(&self, rows: f64) -> f64 {
        self.curve.seconds(rows, self.fit.per_row())
    }
}

/// The costs of the phases that read weights.
#[derive(Debug, Default)]
pub(crate) struct Costs {
    pub(crate) prelude: Cost,
    pub(crate) core: Cost,
    pub(crate) coda: Cost,
}

impl Costs {
    /// Counts a launch. `decodes`: all its rows did, whose costs are not those of rows of prompts.
    pub(crate) fn observe(&mut self, launch: &LaunchRecord, decodes: bool) {
        let cost = match launch.phase {
            Phase::Prelude => &mut self.prelude,
            Phase::Core => &mut self.core,
            Phase::Coda => &mut self.coda,
            Phase::Sample => return,
        };
        let (rows, seconds) = (f64::from(launch.rows), (launch.end - launch.start).as_secs_f64());
        cost.fit.observe(rows, seconds);
        if decodes {
            cost.curve.observe(rows, seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(points: impl IntoIterator<Item = (f64, f64)>) -> f64 {
        let mut fit = LinearFit::default();
        points.into_iter().for_each(|(rows, seconds)| fit.observe(rows, seconds));
        fit.fixed()
    }

    #[test]
    fn the_fixed_part_of_a_line_is_found() {
        let fixed = fit((0..200).map(|i| f64::from(1 + i % 60)).map(|rows| (rows, 3e-3 + rows * 1e-4)));
        assert!((fixed - 3e-3).abs() < 1e-9, "{fixed}");
    }

    #[test]
    fn newer_launches_count_for_more() {
        let old = (0..2000).map(|i| f64::from(1 + i % 60)).map(|rows| (rows, 9e-3 + rows * 1e-4));
        let new = (0..2000).map(|i| f64::from(1 + i % 60)).map(|rows| (rows, 3e-3 + rows * 1e-4));
        let fixed = fit(old.chain(new));
        assert!((fixed - 3e-3).abs() < 1e-4, "{fixed}");
    }

    #[test]
    fn the_fixed_part_stays_between_nothing_and_the_mean() {
        assert_eq!(fit([]), 0.0);
        assert_eq!(fit([(8.0, 2.0), (8.0, 2.0)]), 1.0);
        assert_eq!(fit([(1.0, 1.0), (2.0, 3.0)]), 0.0);
        let falling = fit([(1.0, 3.0), (2.0, 1.0)]);
        assert!((1.9..2.1).contains(&falling), "{falling} is not the mean");
    }
}
