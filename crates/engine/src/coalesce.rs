//! When rows that are done iterating leave: at once, or a few ticks later together.
//!
//! Prelude and coda read as many weights as the core does, so a launch of either for one row costs nearly what it costs
//! for many. A row that waits leaves its share of the core's fixed cost to the others. [`Coalesce::Auto`] lets rows wait
//! until what that has cost reaches the fixed cost of the launches they would share: the rule of ski rental, which for
//! exits at a steady rate is also the best period.

use crate::config::Coalesce;
use crate::cost::Costs;

/// Rows that could leave now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    /// Rows that are done iterating.
    pub(crate) rows: usize,
    /// Ticks that the longest of them has waited.
    pub(crate) oldest: u32,
    /// Rows that go on iterating.
    pub(crate) iterating: usize,
}

/// Decides, tick after tick, whether the waiting rows leave.
#[derive(Debug)]
pub(crate) struct Coalescer {
    policy: Coalesce,
    /// Most ticks that a row waits.
    limit: u32,
    /// Seconds lost by waiting since rows last left.
    lost: f64,
}

impl Coalescer {
    pub(crate) fn new(policy: Coalesce, limit: u32) -> Self {
        Self { policy, limit, lost: 0.0 }
    }

    /// Whether the waiting rows leave in this tick.
    pub(crate) fn leave(&mut self, waiting: Waiting, costs: &Costs) -> bool {
        let Waiting { rows, oldest, iterating } = waiting;
        let leave = rows > 0
            && (iterating == 0
                || oldest >= self.limit
                || match self.policy {
                    Coalesce::Off => true,
                    Coalesce::Fixed(ticks) => oldest >= ticks,
                    Coalesce::Auto => self.has_paid(rows, iterating, costs),
                });
        if leave {
            self.lost = 0.0;
        }
        leave
    }

    /// Counts the loss of one more tick, and compares it with what waiting saves.
    fn has_paid(&mut self, rows: usize, iterating: usize, costs: &Costs) -> bool {
        self.lost += costs.core.fixed() * rows as f64 / (rows + iterating) as f64;
        self.lost >= costs.prelude.fixed() + costs.coda.fixed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::{LaunchRecord, Phase};
    use std::time::Duration;

    /// Costs of 1 ms a launch for each of prelude, core and coda, whatever the rows.
    fn costs() -> Costs {
        let mut costs = Costs::default();
        for rows in 1..40 {
            for phase in [Phase::Prelude, Phase::Core, Phase::Coda] {
                let (start, end) = (Duration::ZERO, Duration::from_millis(1));
                costs.observe(&LaunchRecord { phase, rows, start, end }, true);
            }
        }
        costs
    }

    /// Ticks until rows leave, with one more row waiting each tick and `iterating` others.
    fn ticks(policy: Coalesce, limit: u32, iterating: usize) -> u32 {
        let mut coalescer = Coalescer::new(policy, limit);
        let costs = costs();
        (0..)
            .find(|&tick| {
                let waiting = Waiting { rows: tick as usize + 1, oldest: tick, iterating };
                coalescer.leave(waiting, &costs)
            })
            .expect("waiting is bounded")
    }

    #[test]
    fn nothing_waits_where_nothing_else_iterates() {
        assert_eq!(ticks(Coalesce::Auto, 100, 0), 0);
        assert_eq!(ticks(Coalesce::Fixed(7), 100, 0), 0);
    }

    #[test]
    fn waiting_is_bounded_by_the_policy_and_by_the_limit() {
        assert_eq!(ticks(Coalesce::Off, 100, 20), 0);
        assert_eq!(ticks(Coalesce::Fixed(7), 100, 20), 7);
        assert_eq!(ticks(Coalesce::Fixed(7), 4, 20), 4);
        assert_eq!(ticks(Coalesce::Auto, 4, 1_000_000), 4);
    }

    #[test]
    fn auto_waits_until_the_loss_reaches_what_sharing_saves() {
        // Rows 1, 2, …, n of 16 lose n(n + 1) / 32 ms until that is 2 ms.
        let leaves = (1..).find(|&n| (1..=n).map(|k| f64::from(k) / f64::from(16 + k)).sum::<f64>() >= 2.0);
        assert_eq!(ticks(Coalesce::Auto, 100, 16) + 1, leaves.expect("it grows"));
    }

    #[test]
    fn no_rows_no_launch() {
        let waiting = Waiting { rows: 0, oldest: 0, iterating: 0 };
        assert!(!Coalescer::new(Coalesce::Off, 1).leave(waiting, &costs()));
    }
}
