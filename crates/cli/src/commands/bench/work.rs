//! Kinds of work, and the share of the theoretical gain.

use serde::Serialize;

/// A kind of work that a row can take part in. Prompt positions share launches with many rows, attend to few others, and most
/// of them need no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) rows: RowKind,
    pub(super) part: Part,
}

/// Whose rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowKind {
    /// Positions of a prompt.
    Prompt,
    /// Positions of generated tokens.
    Generated,
}

/// A part of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Prelude,
    /// One iteration.
    Core,
    /// With the head.
    Coda,
}

impl Work {
    pub(super) const ALL: [Self; 6] = {
        use {Part::*, RowKind::*};
        [
            Self { rows: Prompt, part: Prelude },
            Self { rows: Prompt, part: Core },
            Self { rows: Prompt, part: Coda },
            Self { rows: Generated, part: Prelude },
            Self { rows: Generated, part: Core },
            Self { rows: Generated, part: Coda },
        ]
    };
}

/// Something of each kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(super) struct PerWork<T> {
    pub(super) prompt: PerPart<T>,
    pub(super) generated: PerPart<T>,
}

/// Something of each part of the model.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(super) struct PerPart<T> {
    pub(super) prelude: T,
    pub(super) core: T,
    pub(super) coda: T,
}

impl<T> PerWork<T> {
    pub(super) fn get(&self, work: Work) -> &T {
        match work.rows {
            RowKind::Prompt => self.prompt.get(work.part),
            RowKind::Generated => self.generated.get(work.part),
        }
    }

    pub(super) fn get_mut(&mut self, work: Work) -> &mut T {
        match work.rows {
            RowKind::Prompt => self.prompt.get_mut(work.part),
            RowKind::Generated => self.generated.get_mut(work.part),
        }
    }

    pub(super) fn map<U>(&self, mut with: impl FnMut(&T) -> U) -> PerWork<U> {
        PerWork { prompt: self.prompt.map(&mut with), generated: self.generated.map(&mut with) }
    }
}

impl<T> PerPart<T> {
    pub(super) fn get(&self, part: Part) -> &T {
        match part {
            Part::Prelude => &self.prelude,
            Part::Core => &self.core,
            Part::Coda => &self.coda,
        }
    }

    pub(super) fn get_mut(&mut self, part: Part) -> &mut T {
        match part {
            Part::Prelude => &mut self.prelude,
            Part::Core => &mut self.core,
            Part::Coda => &mut self.coda,
        }
    }

    pub(super) fn map<U>(&self, mut with: impl FnMut(&T) -> U) -> PerPart<U> {
        PerPart { prelude: with(&self.prelude), core: with(&self.core), coda: with(&self.coda) }
    }
}

/// Time that `needed` rows of each kind take at the best rates, over the time they took: 1 where every row needed went
/// through at the best rate and nothing else took time. Rates in seconds per row; `wall_seconds` is above 0.
pub(super) fn share_of_theoretical_gain(
    needed: &PerWork<u64>,
    best_rates: &PerWork<f64>,
    wall_seconds: f64,
) -> f64 {
    let at_best = |work| *needed.get(work) as f64 * best_rates.get(work);
    Work::ALL.into_iter().map(at_best).sum::<f64>() / wall_seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_needed_work_at_the_best_rates_over_time_taken() {
        let needed = PerWork {
            prompt: PerPart { prelude: 10, core: 100, coda: 4 },
            generated: PerPart { prelude: 5, core: 50, coda: 2 },
        };
        // 2 s, 1 s and 1 s for the prompts; 2 s, 1 s and 1 s for the tokens.
        let rates = PerWork {
            prompt: PerPart { prelude: 0.2, core: 0.01, coda: 0.25 },
            generated: PerPart { prelude: 0.4, core: 0.02, coda: 0.5 },
        };
        assert_eq!(share_of_theoretical_gain(&needed, &rates, 8.0), 1.0);
        assert_eq!(share_of_theoretical_gain(&needed, &rates, 16.0), 0.5);
    }

    #[test]
    fn work_that_nobody_needs_counts_for_nothing() {
        let rates = PerWork::<()>::default().map(|()| 1.0);
        let mut needed = PerWork::default();
        assert_eq!(share_of_theoretical_gain(&needed, &rates, 4.0), 0.0);
        *needed.get_mut(Work { rows: RowKind::Generated, part: Part::Core }) = 3;
        assert_eq!(share_of_theoretical_gain(&needed, &rates, 4.0), 0.75);
    }
}
