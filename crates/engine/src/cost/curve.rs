//! What launches of so many rows took, as they were seen.

/// How many counts of rows are told apart: two for each doubling.
const GROUPS: usize = 40;
/// Weight of a launch in what all launches take now.
const NEWEST: f64 = 1.0 / 16.0;
/// Weight of a launch in what those of its group take beside others.
const NEWEST_OF_GROUP: f64 = 1.0 / 64.0;
/// How much slower or faster than its group one launch can be taken to be.
const MOST: f64 = 4.0;
/// What is left of a group's weight after a launch of another.
const FADING: f64 = 0.999;
/// A group of less weight is not known.
const LEAST: f64 = 0.1;

/// Mean times of launches of alike row counts. Between them time goes straight. What makes launches slower or faster than before, as longer contexts do, is taken to do so to those of all row counts.
#[derive(Debug)]
pub(crate) struct Curve([Group; GROUPS]);

#[derive(Debug, Clone, Copy, Default)]
struct Group {
    /// 1 when it was seen last.
    weight: f64,
    rows: f64,
    seconds: f64,
}

impl Default for Curve {
    fn default() -> Self {
        Self([Group::default(); GROUPS])
    }
}

impl Curve {
    /// Counts a launch.
    pub(crate) fn observe(&mut self, rows: f64, seconds: f64) {
        if seconds <= 0.0 {
            return;
        }
        let index = ((2.0 * rows.max(1.0).log2()).round() as usize).min(GROUPS - 1);
        if self.0[index].weight < LEAST {
            self.0[index] = Group { weight: 1.0, rows, seconds };
        }
        let slower = (seconds / self.0[index].seconds).clamp(1.0 / MOST, MOST) - 1.0;
        for group in &mut self.0 {
            group.weight *= FADING;
            group.seconds *= 1.0 + NEWEST * slower;
        }
        let group = &mut self.0[index];
        group.weight = 1.0;
        group.rows += NEWEST * (rows - group.rows);
        group.seconds *= 1.0 + NEWEST_OF_GROUP * slower;
    }

    /// Seconds that a launch of so many rows takes; beyond what is known each row takes `per_row`. Nothing where no launch is known.
    pub(crate) fn seconds(&self, rows: f64, per_row: f64) -> f64 {
        let known = || self.0.iter().filter(|group| group.weight >= LEAST);
        let below = known().rfind(|group| group.rows <= rows);
        let above = known().find(|group| group.rows > rows);
        match (below, above) {
            (Some(below), Some(above)) => {
                let way = (rows - below.rows) / (above.rows - below.rows);
                below.seconds + way * (above.seconds - below.seconds)
            }
            (Some(one), None) | (None, Some(one)) => (one.seconds + (rows - one.rows) * per_row).max(0.0),
            (None, None) => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_seen_and_go_straight_between() {
        let mut curve = Curve::default();
        assert_eq!(curve.seconds(5.0, 0.25), 0.0);
        curve.observe(4.0, 2.0);
        assert_eq!([2.0, 4.0, 8.0].map(|rows| curve.seconds(rows, 0.25)), [1.5, 2.0, 3.0]);
        curve.observe(16.0, 10.0);
        assert_eq!([4.0, 10.0, 16.0, 32.0].map(|rows| curve.seconds(rows, 0.25)), [2.0, 6.0, 10.0, 14.0]);
    }

    #[test]
    fn what_was_not_seen_for_long_is_forgotten() {
        let mut curve = Curve::default();
        curve.observe(4.0, 2.0);
        curve.observe(64.0, 1000.0);
        (0..3000).for_each(|_| curve.observe(4.0, 2.0));
        assert_eq!(curve.seconds(64.0, 0.25), 17.0);
    }

    #[test]
    fn newer_launches_count_for_more() {
        let mut curve = Curve::default();
        (0..100).for_each(|_| curve.observe(4.0, 9.0));
        (0..100).for_each(|_| curve.observe(4.0, 2.0));
        assert!((curve.seconds(4.0, 0.0) - 2.0).abs() < 0.02);
    }

    #[test]
    fn what_slows_some_launches_down_slows_all_down() {
        let mut curve = Curve::default();
        [(4.0, 2.0), (64.0, 10.0)].into_iter().for_each(|(rows, seconds)| curve.observe(rows, seconds));
        (0..200).for_each(|_| curve.observe(4.0, 6.0));
        let seen = [4.0, 64.0].map(|rows| curve.seconds(rows, 0.0));
        assert!((seen[0] - 6.0).abs() < 0.01 && (22.0..=30.0).contains(&seen[1]), "{seen:?}");
    }

    #[test]
    fn a_bad_first_launch_is_forgotten_though_its_group_is_seen_again_and_again() {
        let mut curve = Curve::default();
        curve.observe(4.0, 20.0);
        for _ in 0..500 {
            curve.observe(64.0, 10.0);
            curve.observe(4.0, 2.0);
        }
        let seen = [4.0, 64.0].map(|rows| curve.seconds(rows, 0.0));
        assert!((seen[0] - 2.0).abs() < 0.1 && (seen[1] - 10.0).abs() < 0.5, "{seen:?}");
    }

    #[test]
    fn one_launch_that_was_held_up_changes_little() {
        let mut curve = Curve::default();
        [(4.0, 2.0), (64.0, 10.0)].into_iter().for_each(|(rows, seconds)| curve.observe(rows, seconds));
        curve.observe(4.0, 1000.0);
        curve.observe(4.0, 0.0);
        assert!(curve.seconds(64.0, 0.0) < 12.0);
    }
}
