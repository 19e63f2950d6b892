//! What a simulated model says: a function of prompt, seed, position and fingerprint.

use windlass_engine::Request;
use windlass_model::random::{Stream, draw, uniform};
use windlass_model::{AdaptiveDepth, Depth, DepthPolicy};
use xxhash_rust::xxh3::Xxh3;

/// Where between its least and its most depth a simulated token stops in the mean, if nothing bounded it.
const MEAN_PART: f64 = 0.25;

/// Draws one answer's tokens and depths, in any order.
#[derive(Debug)]
pub(super) struct Draws {
    key: u64,
    vocabulary: u32,
}

impl Draws {
    pub(super) fn new(request: &Request, fingerprint: &str, vocabulary: usize) -> Self {
        let mut hash = Xxh3::new();
        hash.update(fingerprint.as_bytes());
        // As in a real engine, the seed says nothing where nothing is drawn.
        let sampling = &request.sampling;
        let seed = if sampling.temperature == 0.0 { 0 } else { sampling.seed };
        hash.update(&seed.to_le_bytes());
        request.prompt.iter().for_each(|token| hash.update(&token.to_le_bytes()));
        Self { key: hash.digest(), vocabulary: vocabulary as u32 }
    }

    /// The token at `position`; each of the vocabulary is as likely as any other.
    pub(super) fn token(&self, position: usize) -> u32 {
        draw(self.key, Stream::Sampling, position as u32, 0)[0] % self.vocabulary
    }

    /// Iterations that the token at `position` takes: exits of an adaptive policy come, one check after the other, with the same
    /// chance.
    pub(super) fn depth(&self, policy: &DepthPolicy, position: usize) -> Depth {
        let AdaptiveDepth { min, max, every, .. } = match policy {
            DepthPolicy::Fixed(depth) => return *depth,
            DepthPolicy::Adaptive(adaptive) => adaptive,
        };
        let [high, low, ..] = draw(self.key, Stream::Depths, position as u32, 0);
        let beyond = -uniform(high, low).ln() * MEAN_PART * f64::from(max - min);
        min.saturating_add(beyond as Depth).next_multiple_of(*every).min(*max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_engine::Sampling;
    use windlass_model::{Criterion, KvPolicy};

    fn draws(prompt: &[u32], seed: u64, temperature: f32, fingerprint: &str) -> Vec<u32> {
        let request = Request {
            sampling: Sampling { seed, temperature, ..Sampling::default() },
            ..Request::greedy(prompt.to_vec(), 1, DepthPolicy::Fixed(1), KvPolicy::Full)
        };
        let draws = Draws::new(&request, fingerprint, 64);
        (0..32).map(|position| draws.token(position)).collect()
    }

    #[test]
    fn tokens_depend_on_prompt_seed_and_fingerprint() {
        let tokens = draws(&[1, 2], 3, 1.0, "a");
        assert!(tokens.iter().all(|token| *token < 64));
        assert_eq!(tokens, draws(&[1, 2], 3, 1.0, "a"));
        for other in [draws(&[1, 3], 3, 1.0, "a"), draws(&[1, 2], 4, 1.0, "a"), draws(&[1, 2], 3, 1.0, "b")] {
            assert_ne!(tokens, other);
        }
        assert_eq!(draws(&[1, 2], 3, 0.0, "a"), draws(&[1, 2], 4, 0.0, "a"));
    }

    #[test]
    fn adaptive_depths_keep_to_their_policy_and_lie_around_their_mean() {
        let request = Request::greedy(vec![1], 1, DepthPolicy::Fixed(1), KvPolicy::Full);
        let draws = Draws::new(&request, "a", 64);
        let policy = |min, max, every| {
            DepthPolicy::Adaptive(AdaptiveDepth { criterion: Criterion::Kl, threshold: 0.1, min, max, every })
        };
        let depths = |policy| (0..4000).map(move |position| (policy, position));
        for (policy, position) in depths(policy(3, 32, 4)) {
            let depth = draws.depth(&policy, position);
            assert!((3..=32).contains(&depth) && depth.is_multiple_of(4), "{depth}");
        }
        let sum: u32 =
            depths(policy(4, 44, 1)).map(|(policy, position)| draws.depth(&policy, position)).sum();
        let mean = f64::from(sum) / 4000.0;
        // An exponential of mean 10 cut at 40, and on average half an iteration lost in rounding down.
        assert!((mean - 13.3).abs() < 0.7, "{mean}");
    }
}
