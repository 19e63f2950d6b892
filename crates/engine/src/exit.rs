//! When a decoding row stops.

use windlass_kernels::LatentChange;
use windlass_model::exit::{ExitState, is_checked, may_stop};
use windlass_model::{AdaptiveDepth, Criterion, Depth, DepthPolicy};

use crate::request::Request;

/// What becomes of a row after a core iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It iterates on.
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

    /// After the iteration that completed `depth`.
    pub(crate) fn after_core(&mut self, depth: Depth, change: &LatentChange) -> Verdict {
        let policy = match &self.rule {
            Rule::At(last) => return if depth == *last { Verdict::Leave } else { Verdict::Iterate },
            Rule::Adaptive(policy, _) => *policy,
        };
        let checked = is_checked(&policy, depth);
        if checked && policy.criterion.needs_logits() {
            return Verdict::Probe;
        }
        let mut stops = depth == policy.max;
        if checked {
            let value = latent_value(policy.criterion, change);
            stops |= may_stop(&policy, depth, value);
            self.record(value);
        }
        if stops { Verdict::Leave } else { Verdict::Iterate }
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

/// The value of a criterion that needs the latent alone.
fn latent_value(criterion: Criterion, change: &LatentChange) -> f64 {
    let [difference, current, previous, dot] =
        [change.difference_squared, change.current_squared, change.previous_squared, change.dot]
            .map(f64::from);
    match criterion {
        Criterion::LatentDiff => difference.sqrt() / current.sqrt(),
        Criterion::Cosine => 1.0 - dot / (current.sqrt() * previous.sqrt()),
        criterion => panic!("{criterion} needs logits"),
    }
}
