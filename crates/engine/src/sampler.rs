//! From logits to a token.

use std::collections::HashMap;

use windlass_model::exit::argmax;
use windlass_model::random::{Stream, draw, uniform};

use crate::request::Sampling;

/// Draws one lane's tokens. The draw for a position depends on the seed, the position and the logits alone.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    /// Tokens of the prompt, and how often each was generated; kept only for penalties.
    seen: HashMap<u32, u32>,
}

/// A token that may be drawn.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: u32,
    /// Its logit, then its unnormalised probability.
    weight: f64,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling, prompt: &[u32]) -> Self {
        Self { sampling, seen: prompt.iter().map(|&token| (token, 0)).collect() }
    }

    /// The token at `position`, given its `logits`, `[vocabulary]`.
    pub(crate) fn sample(&mut self, logits: &[f32], position: u32) -> u32 {
        let logits = self.adjusted(logits);
        let token = if self.sampling.temperature == 0.0 {
            argmax(&logits) as u32
        } else {
            self.draw(&logits, position)
        };
        *self.seen.entry(token).or_default() += 1;
        token
    }

    /// Logits after bias and penalties.
    fn adjusted(&self, logits: &[f32]) -> Vec<f32> {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        let mut logits = logits.to_vec();
        for (&token, bias) in &self.sampling.logit_bias {
            logits[token as usize] += bias;
        }
        for (&token, &count) in &self.seen {
            let logit = &mut logits[token as usize];
            *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
            if count > 0 {
                *logit -= presence_penalty + frequency_penalty * count as f32;
            }
        }
        logits
    }

    fn draw(&self, logits: &[f32], position: u32) -> u32 {
        let candidates = self.candidates(logits);
        let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
        let [high, low, ..] = draw(self.sampling.seed, Stream::Sampling, position, 0);
        let mut left = uniform(high, low) * total;
        for candidate in &candidates {
            left -= candidate.weight;
            if left < 0.0 {
                return candidate.token;
            }
        }
        candidates.last().expect("the most likely token always stays").token
    }

    /// What top-k, top-p and min-p leave, most likely first, equals by id.
    fn candidates(&self, logits: &[f32]) -> Vec<Candidate> {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        let mut candidates: Vec<Candidate> = (0..)
            .zip(logits)
            .map(|(token, &logit)| Candidate { token, weight: f64::from(logit) / f64::from(temperature) })
            .collect();
        candidates.sort_unstable_by(|a, b| b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token)));
        candidates.truncate(top_k.unwrap_or(usize::MAX));
        let largest = candidates[0].weight;
        for candidate in &mut candidates {
            candidate.weight = (candidate.weight - largest).exp();
        }
        let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
        let mut before = 0.0;
        let mut kept = 0;
        for candidate in &candidates {
            // The most likely token has weight 1, so min-p compares with weights as they are.
            if kept > 0 && (before >= f64::from(top_p) * total || candidate.weight < f64::from(min_p)) {
                break;
            }
            before += candidate.weight;
            kept += 1;
        }
        candidates.truncate(kept);
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [1.0, 3.0, 2.0, 3.0];

    fn sampler(sampling: Sampling) -> Sampler {
        Sampler::new(sampling, &[])
    }

    fn hot(sampling: Sampling) -> Sampling {
        Sampling { temperature: 1.0, ..sampling }
    }

    /// How often each of four tokens is drawn.
    fn shares(sampling: &Sampling) -> [f64; 4] {
        let mut counts = [0.0; 4];
        for position in 0..20_000 {
            counts[sampler(sampling.clone()).sample(&LOGITS, position) as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(sampler(Sampling::default()).sample(&LOGITS, 0), 1);
    }

    #[test]
    fn draws_follow_the_softmax() {
        let weights = LOGITS.map(|x| f64::from(x).exp());
        let total: f64 = weights.iter().sum();
        for (share, weight) in shares(&hot(Sampling::default())).into_iter().zip(weights) {
            assert!((share - weight / total).abs() < 0.015);
        }
    }

    #[test]
    fn truncations_leave_what_they_promise() {
        let left = |sampling: Sampling| shares(&hot(sampling)).map(|share| share > 0.0);
        let plain = Sampling::default;
        assert_eq!(left(Sampling { top_k: Some(1), ..plain() }), [false, true, false, false]);
        assert_eq!(left(Sampling { top_p: 0.7, ..plain() }), [false, true, false, true]);
        assert_eq!(left(Sampling { min_p: 0.3, ..plain() }), [false, true, true, true]);
        assert_eq!(left(Sampling { top_p: 1e-6, min_p: 1.0, ..plain() }), [false, true, false, false]);
    }

    #[test]
    fn bias_and_penalties_move_the_choice() {
        let bias = Sampling { logit_bias: [(0, 5.0)].into(), ..Sampling::default() };
        assert_eq!(sampler(bias).sample(&LOGITS, 0), 0);
        let repetition = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        assert_eq!(Sampler::new(repetition, &[1, 3]).sample(&LOGITS, 0), 2);
        let mut frequency = sampler(Sampling { frequency_penalty: 0.6, ..Sampling::default() });
        let tokens: Vec<u32> = (0..5).map(|position| frequency.sample(&LOGITS, position)).collect();
        assert_eq!(tokens, [1, 3, 1, 3, 2]);
    }

    #[test]
    fn a_draw_depends_on_seed_and_position_only() {
        let draws = |seed| {
            let mut sampler = sampler(hot(Sampling { seed, ..Sampling::default() }));
            (0..64).map(|position| sampler.sample(&[0.0; 64], position)).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }
}
