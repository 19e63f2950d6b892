//! When a decoding row stops.

use windlass_kernels::{LatentChange, Stop};
use windlass_model::exit::{ExitState, is_checked, may_stop};
use windlass_model::{AdaptiveDepth, Criterion, Depth, DepthPolicy};

use crate::request::Request;

/// What becomes of a row after a core iteration, as far as that is known before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It iterates on, unless it stops by the way its latent changes.
    Iterate,
    /// The criterion wants its logits first.
    Probe,
    /// It leaves through the coda.
    Leave,
}

/// One row's way to its exit.
#[derive(Debug)]
pub(crate) struct Exit {
    rule: Rule,
    /// The criterion's value at the last check.
    pub(crate) value: Option<f64>,
    /// Its value at every check so far, if they are kept.
    pub(crate) values: Vec<f64>,
    keeps_values: bool,
}

#[derive(Debug)]
enum Rule {
    /// At this depth, whatever the values.
    At(Depth),
    /// When the criterion is met.
    Adaptive(AdaptiveDepth, ExitState),
}

impl Exit {
    /// The exit of one of the request's rows; `recorded` is its depth where that was decided before.
    pub(crate) fn new(request: &Request, recorded: Option<Depth>, vocabulary: usize) -> Self {
        let rule = match (&request.depth, recorded) {
            (_, Some(depth)) => Rule::At(depth),
            (DepthPolicy::Fixed(depth), None) => Rule::At(*depth),
            (DepthPolicy::Adaptive(adaptive), None) => {
                Rule::Adaptive(*adaptive, ExitState::new(adaptive.criterion, vocabulary))
            }
        };
        Self { rule, value: None, values: Vec::new(), keeps_values: request.exit_values }
    }

    /// What is known of a row that completes `depth`, whatever its latent is then.
    pub(crate) fn at(&self, depth: Depth) -> Verdict {
        match &self.rule {
            Rule::At(last) if depth == *last => Verdict::Leave,
            Rule::Adaptive(policy, _) if is_checked(policy, depth) && policy.criterion.needs_logits() => {
                Verdict::Probe
            }
            Rule::Adaptive(policy, _) if depth == policy.max => Verdict::Leave,
            Rule::At(_) | Rule::Adaptive(..) => Verdict::Iterate,
        }
    }

    /// By what change of its latent a row stops that completes `depth`.
    pub(crate) fn stop(&self, depth: Depth) -> Stop {
        match &self.rule {
            Rule::Adaptive(policy, _) if is_checked(policy, depth) && depth >= policy.min => {
                match policy.criterion {
                    Criterion::LatentDiff => Stop::RelativeDifference(policy.threshold),
                    Criterion::Cosine => Stop::CosineDistance(policy.threshold),
                    _ => Stop::Never,
                }
            }
            Rule::At(_) | Rule::Adaptive(..) => Stop::Never,
        }
    }

    /// Whether a row stops that completed `depth` with this change.
    pub(crate) fn after_core(&mut self, depth: Depth, change: &LatentChange) -> bool {
        if let Rule::Adaptive(policy, _) = &self.rule
            && is_checked(policy, depth)
        {
            match policy.criterion {
                Criterion::LatentDiff => self.record(change.relative_difference()),
                Criterion::Cosine => self.record(change.cosine_distance()),
                _ => {}
            }
        }
        self.stop(depth).is_met(change)
    }

    /// After a probe at `depth` that gave `logits`: whether the row leaves.
    pub(crate) fn after_probe(&mut self, depth: Depth, logits: &[f32]) -> bool {
        let Rule::Adaptive(policy, state) = &mut self.rule else {
            panic!("only an adaptive row is probed");
        };
        let value = state.update_logits(logits);
        let stops = depth == policy.max || may_stop(policy, depth, value);
        self.record(value);
        stops
    }

    fn record(&mut self, value: f64) {
        self.value = Some(value);
        if self.keeps_values {
            self.values.push(value);
        }
    }
}
