//! What a demo run measured, in numbers.

use serde::Serialize;

use crate::puzzles::{Kind, Puzzle};

/// All that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) model: String,
    pub(crate) workers: usize,
    pub(crate) puzzles: usize,
    pub(crate) seed: u64,
    /// Core iterations of a token at full depth.
    pub(crate) full_depth: u32,
    pub(crate) policies: Vec<PolicyReport>,
}

/// How all puzzles went under one depth policy.
#[derive(Debug, Serialize)]
pub(crate) struct PolicyReport {
    pub(crate) policy: String,
    /// Fraction of puzzles answered right, whole answers only.
    pub(crate) accuracy: f64,
    /// Core iterations per generated token.
    pub(crate) mean_depth: f64,
    pub(crate) tokens: u64,
    pub(crate) seconds: f64,
    pub(crate) tokens_per_second: f64,
    /// Of generated tokens; prompt positions are not counted.
    pub(crate) core_iterations: u64,
    /// Fewer than the same tokens take at full depth.
    pub(crate) core_iterations_saved: i64,
    pub(crate) sizes: Vec<SizeReport>,
}

/// The same for the puzzles of one kind and size.
#[derive(Debug, Serialize)]
pub(crate) struct SizeReport {
    pub(crate) kind: &'static str,
    pub(crate) size: u32,
    pub(crate) puzzles: usize,
    pub(crate) correct: usize,
    pub(crate) accuracy: f64,
    pub(crate) mean_depth: f64,
}

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) puzzle: Puzzle,
    pub(crate) text: String,
    /// Each generated token's id and core iterations.
    pub(crate) tokens: Vec<(u32, u32)>,
}

impl Outcome {
    pub(crate) fn is_correct(&self) -> bool {
        self.text == self.puzzle.answer
    }

    fn core_iterations(&self) -> u64 {
        self.tokens.iter().map(|(_, depth)| u64::from(*depth)).sum()
    }
}

impl PolicyReport {
    /// Sums up all outcomes of one policy, which took `seconds` together.
    pub(crate) fn new(policy: String, outcomes: &[Outcome], seconds: f64, full_depth: u32) -> Self {
        let all: Vec<&Outcome> = outcomes.iter().collect();
        let tokens: u64 = all.iter().map(|outcome| outcome.tokens.len() as u64).sum();
        let core_iterations: u64 = all.iter().map(|outcome| outcome.core_iterations()).sum();
        let mut sizes: Vec<(Kind, u32)> = all.iter().map(|outcome| size_of(outcome)).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let of_size = |size: (Kind, u32)| {
            let outcomes: Vec<&Outcome> =
                all.iter().copied().filter(|outcome| size_of(outcome) == size).collect();
            SizeReport::new(size, &outcomes)
        };
        Self {
            policy,
            accuracy: fraction(correct(&all) as u64, all.len() as u64),
            mean_depth: fraction(core_iterations, tokens),
            tokens,
            seconds,
            tokens_per_second: tokens as f64 / seconds,
            core_iterations,
            core_iterations_saved: (tokens * u64::from(full_depth)) as i64 - core_iterations as i64,
            sizes: sizes.into_iter().map(of_size).collect(),
        }
    }
}

impl SizeReport {
    fn new((kind, size): (Kind, u32), outcomes: &[&Outcome]) -> Self {
        let tokens: u64 = outcomes.iter().map(|outcome| outcome.tokens.len() as u64).sum();
        let core_iterations: u64 = outcomes.iter().map(|outcome| outcome.core_iterations()).sum();
        let correct = correct(outcomes);
        Self {
            kind: kind.name(),
            size,
            puzzles: outcomes.len(),
            correct,
            accuracy: fraction(correct as u64, outcomes.len() as u64),
            mean_depth: fraction(core_iterations, tokens),
        }
    }
}

fn size_of(outcome: &Outcome) -> (Kind, u32) {
    (outcome.puzzle.kind, outcome.puzzle.size)
}

fn correct(outcomes: &[&Outcome]) -> usize {
    outcomes.iter().filter(|outcome| outcome.is_correct()).count()
}

fn fraction(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(kind: Kind, size: u32, text: &str, depths: &[u32]) -> Outcome {
        let puzzle = Puzzle { kind, size, prompt: String::new(), answer: "7".to_owned() };
        Outcome { puzzle, text: text.to_owned(), tokens: depths.iter().map(|depth| (0, *depth)).collect() }
    }

    #[test]
    fn a_report_sums_up_by_kind_and_size() {
        let outcomes = [
            outcome(Kind::Chain, 1, "7", &[16, 4]),
            outcome(Kind::Arithmetic, 2, "7", &[16, 2]),
            outcome(Kind::Arithmetic, 2, "78", &[16, 2]),
        ];
        let report = PolicyReport::new("adaptive".into(), &outcomes, 2.0, 16);
        let sizes: Vec<_> =
            report.sizes.iter().map(|size| (size.kind, size.size, size.correct, size.mean_depth)).collect();
        assert_eq!(sizes, [("arithmetic", 2, 1, 9.0), ("chain", 1, 1, 10.0)]);
        assert_eq!((report.tokens, report.core_iterations, report.core_iterations_saved), (6, 56, 40));
        assert_eq!((report.tokens_per_second, report.accuracy), (3.0, 2.0 / 3.0));
    }
}
