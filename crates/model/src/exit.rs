//! Exit criteria: the value that decides whether a position may stop.
//!
//! Pure functions over one row; no policy about when to check is hidden here except [`is_checked`] and
//! [`may_stop`]. Sums run in f64, first element to last, so the same row gives the same value wherever it is
//! computed. Definitions are those of arXiv 2502.05171 and its reference implementation; a comparison with NaN
//! never stops a position.

use crate::depth::{AdaptiveDepth, Criterion, Depth};

/// Whether the criterion is looked at after `depth` completed iterations.
pub fn is_checked(policy: &AdaptiveDepth, depth: Depth) -> bool {
    depth.is_multiple_of(policy.every)
}

/// Whether a position at `depth` may stop, given the value of a check made there.
pub fn may_stop(policy: &AdaptiveDepth, depth: Depth, value: f64) -> bool {
    depth >= policy.min && policy.criterion.is_met(value, policy.threshold)
}

/// What one position remembers from check to check.
#[derive(Debug, Clone)]
pub struct ExitState {
    criterion: Criterion,
    memory: Memory,
}

#[derive(Debug, Clone)]
enum Memory {
    /// The latent criteria: the caller has both states.
    None,
    /// `kl` and `minp-kl`: log-probabilities at the last check, `[vocabulary]`.
    LogProbabilities(Vec<f64>),
    /// `entropy-diff`: the entropy at the last check, in nats.
    Entropy(f64),
    /// `argmax-stability`: the token at the last check, and how many checks in a row confirmed it.
    Argmax { token: Option<usize>, repeats: u32 },
}

impl ExitState {
    /// The state before a position's first check. `vocabulary` is the padded size, the length of a row of logits.
    pub fn new(criterion: Criterion, vocabulary: usize) -> Self {
        let memory = match criterion {
            Criterion::LatentDiff | Criterion::Cosine => Memory::None,
            Criterion::Kl | Criterion::MinpKl => {
                Memory::LogProbabilities(vec![-(vocabulary as f64).ln(); vocabulary])
            }
            Criterion::EntropyDiff => Memory::Entropy(100.0),
            Criterion::ArgmaxStability => Memory::Argmax { token: None, repeats: 0 },
        };
        Self { criterion, memory }
    }

    /// The value of `latent-diff` or `cosine` for a position that went from `previous` to `current`, both
    /// `[hidden]`, in its last iteration (`previous` is the initial latent at depth 1).
    ///
    /// # Panics
    /// When the criterion needs logits.
    pub fn update_latent(&mut self, previous: &[f32], current: &[f32]) -> f64 {
        match self.criterion {
            Criterion::LatentDiff => latent_diff(previous, current),
            Criterion::Cosine => cosine_distance(previous, current),
            criterion => panic!("{criterion} needs logits"),
        }
    }

    /// The value of any other criterion for a position whose logits are now `logits`, `[vocabulary]`, against
    /// its last check.
    ///
    /// # Panics
    /// When the criterion is a latent one, or `logits` has another length than the vocabulary.
    pub fn update_logits(&mut self, logits: &[f32]) -> f64 {
        match &mut self.memory {
            Memory::None => panic!("{} needs latents", self.criterion),
            Memory::LogProbabilities(previous) => {
                assert_eq!(previous.len(), logits.len(), "one logit per token of the vocabulary");
                let mut current = log_softmax(logits);
                if self.criterion == Criterion::MinpKl {
                    flatten_unlikely(&mut current);
                }
                let value = kl_divergence(previous, &current);
                *previous = current;
                value
            }
            Memory::Entropy(previous) => {
                let current = entropy(&log_softmax(logits));
                let value = (current - *previous).abs();
                *previous = current;
                value
            }
            Memory::Argmax { token, repeats } => {
                let current = Some(argmax(logits));
                *repeats = if current == *token { *repeats + 1 } else { 0 };
                *token = current;
                f64::from(*repeats)
            }
        }
    }
}

/// ‖current − previous‖ / ‖current‖ of two rows of equal length.
pub fn latent_diff(previous: &[f32], current: &[f32]) -> f64 {
    let change = pairs(previous, current).map(|(p, c)| (c - p) * (c - p)).sum::<f64>();
    let size = current.iter().map(|&c| f64::from(c) * f64::from(c)).sum::<f64>();
    change.sqrt() / size.sqrt()
}

/// 1 − cos(previous, current) of two rows of equal length; NaN when one of them is zero, as in the reference.
pub fn cosine_distance(previous: &[f32], current: &[f32]) -> f64 {
    let (mut dot, mut previous_size, mut current_size) = (0.0, 0.0, 0.0);
    for (p, c) in pairs(previous, current) {
        dot += p * c;
        previous_size += p * p;
        current_size += c * c;
    }
    1.0 - dot / (previous_size.sqrt() * current_size.sqrt())
}

/// Index of the largest value; the first of equals.
///
/// # Panics
/// When `values` is empty.
pub fn argmax(values: &[f32]) -> usize {
    assert!(!values.is_empty(), "no largest of nothing");
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// Natural logarithms of the softmax of `logits`.
pub fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = f64::from(logits[argmax(logits)]);
    let sum = logits.iter().map(|&x| (f64::from(x) - largest).exp()).sum::<f64>();
    logits.iter().map(|&x| f64::from(x) - largest - sum.ln()).collect()
}

/// Σ p (log p − log q), from log-probabilities.
fn kl_divergence(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(&p, &q)| p.exp() * (p - q)).sum()
}

/// −Σ p log p in nats, from log-probabilities.
fn entropy(log_probabilities: &[f64]) -> f64 {
    -log_probabilities.iter().map(|&p| p.exp() * p).sum::<f64>()
}

/// Every probability below a tenth of the largest becomes 1/V; then the row is renormalised.
fn flatten_unlikely(log_probabilities: &mut [f64]) {
    let largest = log_probabilities.iter().copied().fold(f64::NEG_INFINITY, f64::max).exp();
    let uniform = 1.0 / log_probabilities.len() as f64;
    let mut sum = 0.0;
    for log_probability in log_probabilities.iter_mut() {
        let probability = log_probability.exp();
        *log_probability = if probability < 0.1 * largest { uniform } else { probability };
        sum += *log_probability;
    }
    log_probabilities.iter_mut().for_each(|p| *p = (*p / sum).ln());
}

fn pairs<'a>(previous: &'a [f32], current: &'a [f32]) -> impl Iterator<Item = (f64, f64)> + 'a {
    assert_eq!(previous.len(), current.len(), "two states of one position");
    previous.iter().zip(current).map(|(&p, &c)| (f64::from(p), f64::from(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latent_diff_is_one_from_the_zero_state_and_zero_at_rest() {
        let mut state = ExitState::new(Criterion::LatentDiff, 4);
        assert_eq!(state.update_latent(&[0.0, 0.0], &[3.0, 4.0]), 1.0);
        assert_eq!(state.update_latent(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
    }

    #[test]
    fn cosine_from_the_zero_state_never_stops() {
        let value = ExitState::new(Criterion::Cosine, 4).update_latent(&[0.0, 0.0], &[3.0, 4.0]);
        assert!(value.is_nan() && !Criterion::Cosine.is_met(value, 1e9));
    }

    #[test]
    fn uniform_logits_have_no_divergence_from_the_start() {
        for criterion in [Criterion::Kl, Criterion::MinpKl] {
            assert!(ExitState::new(criterion, 8).update_logits(&[2.5; 8]).abs() < 1e-12, "{criterion}");
        }
    }

    #[test]
    fn entropy_is_compared_with_a_hundred_first() {
        let mut state = ExitState::new(Criterion::EntropyDiff, 4);
        assert!((state.update_logits(&[1.0; 4]) - (100.0 - 4f64.ln())).abs() < 1e-12);
        assert_eq!(state.update_logits(&[1.0; 4]), 0.0);
    }

    #[test]
    fn a_changed_argmax_starts_the_count_again() {
        let mut state = ExitState::new(Criterion::ArgmaxStability, 2);
        let rows = [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 2.0]];
        assert_eq!(rows.map(|row| state.update_logits(&row)), [0.0, 1.0, 2.0, 0.0, 1.0]);
    }

    #[test]
    fn nothing_stops_before_the_minimum_or_between_checks() {
        let policy =
            AdaptiveDepth { criterion: Criterion::LatentDiff, threshold: 0.5, min: 4, max: 8, every: 2 };
        assert!(!is_checked(&policy, 3) && is_checked(&policy, 4));
        assert!(!may_stop(&policy, 2, 0.0) && may_stop(&policy, 4, 0.0));
    }
}
