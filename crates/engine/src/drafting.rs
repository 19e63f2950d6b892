//! When tokens are guessed.
//!
//! With a guess from every row each `interval` iterations, the next position begins as soon as a guess is right: the *spacing* between
//! positions is the least multiple of the interval at which it is, in place of a token's whole depth. That takes more rows a
//! tick, some of which come to nothing, and more launches of prelude and coda. [`Draft::Auto`] compares what useful rows cost either way,
//! by what launches of so many rows have taken, at several intervals.

use windlass_model::Depth;

use crate::config::{Draft, EngineConfig, Schedule};
use crate::cost::Costs;
use crate::lane::Lane;

/// How many iterations apart guesses may be.
const INTERVALS: [Depth; 4] = [2, 4, 8, 16];
/// Ticks between two looks at whether guesses pay, while none are made.
const LOOK_AFTER: Depth = 16;
/// How many tokens a mean is of, the newer counting for more once it is of so many.
const MEMORY: u32 = 32;
/// How much nearer to the best there is a spacing is taken to be after each token that was not guessed, so that guessing is tried again.
const FORGETTING: f64 = 1.0 / 8192.0;
/// By how much guesses must pay.
const GAIN: f64 = 1.15;

/// Decides, tick after tick, whether guesses are made.
#[derive(Debug)]
pub(crate) struct Drafting {
    policy: Draft,
    max_rows: f64,
    /// Ticks since they were made, or looked at, last.
    since: Depth,
    /// The interval of [`Draft::Auto`] now; none while it does not pay.
    interval: Option<Depth>,
    /// Mean depth of tokens, once there are some.
    depth: Option<f64>,
    /// What guesses come to at each of [`INTERVALS`]: the best there is, and then the mean of so many tokens.
    outlooks: [Outlook; INTERVALS.len()],
    guessed: u32,
}

/// What a token takes that is guessed.
#[derive(Debug, Clone, Copy)]
struct Outlook {
    interval: Depth,
    /// Iterations after which the next position begins on the right guess.
    spacing: f64,
    /// Iterations of drafts on wrong guesses until then.
    in_vain: f64,
}

impl Outlook {
    /// The best there is.
    fn new(interval: Depth) -> Self {
        Self { interval, spacing: f64::from(interval), in_vain: 0.0 }
    }

    /// Counts a token of this depth, for which others were guessed until `others_until`, with some weight.
    fn count(&mut self, depth: Depth, others_until: Depth, weight: f64) {
        let spacing = f64::from((others_until + 1).next_multiple_of(self.interval).min(depth));
        // Behind a wrong guess there is a draft more each interval.
        let wrong = (spacing - f64::from(self.interval)).max(0.0);
        let in_vain = wrong * wrong / (2.0 * f64::from(self.interval));
        self.spacing += weight * (spacing - self.spacing);
        self.in_vain += weight * (in_vain - self.in_vain);
    }
}

impl Drafting {
    pub(crate) fn new(config: &EngineConfig) -> Self {
        // The schedules that are there for comparison are those of others.
        let policy = if config.schedule == Schedule::Depth { config.draft } else { Draft::Off };
        Self {
            policy,
            max_rows: config.max_rows as f64,
            since: 0,
            interval: None,
            depth: None,
            outlooks: INTERVALS.map(Outlook::new),
            guessed: 0,
        }
    }

    /// From which depth on rows guess in this tick, if they do: all of them together, so that they share a launch of the coda.
    /// `rows`: those of the tick's core launch.
    pub(crate) fn guesses_from(&mut self, lanes: &[Lane], rows: usize, costs: &Costs) -> Option<Depth> {
        self.since = self.since.saturating_add(1);
        match self.policy {
            Draft::Off => return None,
            Draft::Every(interval) => self.interval = Some(interval),
            Draft::Auto => {
                let now = self.interval.filter(|&now| self.is_time(now, now, lanes));
                if now.is_some() || self.is_time(LOOK_AFTER, INTERVALS[0], lanes) {
                    self.interval = self.best_interval(Rows::count(lanes, rows), costs);
                    self.since = if self.interval.is_some() { self.since } else { 0 };
                }
            }
        }
        let interval = self.interval.filter(|&interval| self.is_time(interval, interval, lanes))?;
        self.since = 0;
        Some(interval)
    }

    /// Whether it is so many ticks since the last time, and a draft may follow a row of this depth.
    fn is_time(&self, ticks: Depth, depth: Depth, lanes: &[Lane]) -> bool {
        self.since >= ticks && lanes.iter().any(|lane| lane.lacks_draft(depth))
    }

    /// Counts a token that took `depth` iterations; others were guessed for it until `others_until`, 0 if never, none if nothing was.
    pub(crate) fn count(&mut self, depth: Depth, others_until: Option<Depth>) {
        let mean = self.depth.get_or_insert(f64::from(depth));
        *mean += (f64::from(depth) - *mean) / f64::from(MEMORY);
        self.guessed = (self.guessed + u32::from(others_until.is_some())).min(MEMORY - 1);
        for outlook in &mut self.outlooks {
            match others_until {
                // As if the first guess had been right.
                None => outlook.count(depth.max(outlook.interval), 0, FORGETTING),
                Some(until) => outlook.count(depth, until, 1.0 / f64::from(1 + self.guessed)),
            }
        }
    }

    /// The interval at which rows cost least, if that is less than without guesses.
    fn best_interval(&self, rows: Rows, costs: &Costs) -> Option<Depth> {
        let depth = self.depth?;
        let cost = |outlook: &Outlook| (outlook.interval, self.cost(rows, costs, depth, outlook));
        let (interval, least) = self.outlooks.iter().map(cost).min_by(|a, b| a.1.total_cmp(&b.1))?;
        // Without guesses, that is at an interval that no token reaches.
        let (_, without) = cost(&Outlook { interval: Depth::MAX, spacing: depth, in_vain: 0.0 });
        (least * GAIN < without).then_some(interval)
    }

    /// Seconds for a row that comes to something.
    fn cost(&self, rows: Rows, costs: &Costs, depth: f64, outlook: &Outlook) -> f64 {
        let (Rows { lanes, others }, Outlook { interval, spacing, in_vain }) = (rows, *outlook);
        let spacing = spacing.min(depth);
        let rows = lanes * (depth + in_vain) / spacing;
        if rows + others > self.max_rows && rows > lanes {
            return f64::INFINITY;
        }
        let ends = costs.prelude.seconds(lanes) + costs.coda.seconds(rows);
        let tick = costs.core.seconds(rows + others) + ends / spacing.min(f64::from(interval));
        tick / (lanes * depth / spacing + others)
    }
}

/// Rows of a core launch without drafts.
#[derive(Debug, Clone, Copy)]
struct Rows {
    /// Lanes that may have drafts.
    lanes: f64,
    /// Rows of others.
    others: f64,
}

impl Rows {
    /// Those of a launch with `rows`, drafts among them.
    fn count(lanes: &[Lane], rows: usize) -> Self {
        let may_draft = || lanes.iter().filter(|lane| lane.decodes() && lane.sequence.may_draft());
        let own: usize = may_draft().map(|lane| lane.rows().len()).sum();
        Self { lanes: may_draft().count() as f64, others: rows.saturating_sub(own) as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::{LaunchRecord, Phase};
    use std::time::Duration;

    /// Costs of a core launch of so many microseconds and per row, and of half of that for prelude and coda.
    fn costs(fixed: u64, per_row: u64) -> Costs {
        let mut costs = Costs::default();
        for rows in 1..200 {
            for (phase, share) in [(Phase::Prelude, 2), (Phase::Core, 1), (Phase::Coda, 2)] {
                let end = Duration::from_micros((fixed + per_row * u64::from(rows)) / share);
                costs.observe(&LaunchRecord { phase, rows, start: Duration::ZERO, end }, true);
            }
        }
        costs
    }

    /// After many tokens of this depth, for which others were guessed until some iteration.
    fn drafting(depth: Depth, others_until: Depth) -> Drafting {
        let mut drafting = Drafting {
            policy: Draft::Auto,
            max_rows: 4096.0,
            since: 0,
            interval: None,
            depth: None,
            outlooks: INTERVALS.map(Outlook::new),
            guessed: 0,
        };
        (0..300).for_each(|_| drafting.count(depth, Some(others_until)));
        drafting
    }

    const ONE: Rows = Rows { lanes: 1.0, others: 0.0 };

    #[test]
    fn spacings_are_the_first_guess_that_was_right() {
        let close = |drafting: Drafting, expected: [f64; 4]| {
            let each = drafting.outlooks.map(|outlook| outlook.spacing).into_iter().zip(expected);
            assert!(each.clone().all(|(got, expected)| (got - expected).abs() < 0.01), "{each:?}");
        };
        close(drafting(32, 4), [6.0, 8.0, 8.0, 16.0]);
        close(drafting(32, 0), [2.0, 4.0, 8.0, 16.0]);
        close(drafting(32, 16), [18.0, 20.0, 24.0, 32.0]);
        close(drafting(3, 0), [2.0, 3.0, 3.0, 3.0]);
    }

    #[test]
    fn wrong_guesses_have_more_drafts_behind_them_the_longer_they_last() {
        let in_vain = |others_until| drafting(32, others_until).outlooks[1].in_vain;
        // One draft for 4 iterations and one that has just begun; four, the first of which has taken 16.
        assert!((in_vain(4) - 2.0).abs() < 0.01 && (in_vain(16) - 32.0).abs() < 0.01);
    }

    #[test]
    fn guesses_pay_where_rows_cost_little_and_not_where_they_cost_all() {
        assert_eq!(drafting(32, 0).best_interval(ONE, &costs(1000, 1)), Some(2));
        assert_eq!(drafting(32, 6).best_interval(ONE, &costs(1000, 1)), Some(8));
        assert_eq!(drafting(32, 4).best_interval(ONE, &costs(0, 100)), None);
        // Nor where they come true at the end alone.
        assert_eq!(drafting(32, 30).best_interval(ONE, &costs(1000, 1)), None);
        // The more rows share a launch, the less is left of what it costs whatever its rows.
        let pays = |rows| drafting(32, 6).best_interval(rows, &costs(1000, 20)).is_some();
        let many = Rows { lanes: 512.0, others: 0.0 };
        assert_eq!([pays(ONE), pays(many), pays(Rows { lanes: 1.0, others: 512.0 })], [true, false, false]);
    }

    #[test]
    fn an_interval_that_few_tokens_reach_saves_no_ends() {
        assert_eq!(drafting(4, 3).best_interval(ONE, &costs(1000, 1)), None);
        assert_eq!(drafting(6, 5).best_interval(ONE, &costs(1000, 1)), None);
    }

    #[test]
    fn guesses_that_launches_have_no_room_for_do_not_pay() {
        let drafting = |max_rows| Drafting { max_rows, ..drafting(32, 0) };
        let rows = Rows { lanes: 8.0, others: 0.0 };
        assert_eq!(drafting(128.0).best_interval(rows, &costs(1000, 1)), Some(2));
        assert_eq!(drafting(64.0).best_interval(rows, &costs(1000, 1)), Some(4));
        assert_eq!(drafting(8.0).best_interval(rows, &costs(1000, 1)), None);
    }

    #[test]
    fn what_did_not_pay_is_tried_again() {
        let mut drafting = drafting(32, 31);
        let costs = costs(1000, 1);
        let tokens = (0..).find(|_| {
            drafting.count(32, None);
            drafting.best_interval(ONE, &costs).is_some()
        });
        assert!((100..20_000).contains(&tokens.expect("guesses are tried again")), "{tokens:?}");
    }
}
