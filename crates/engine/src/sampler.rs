//! From logits to a token.

use std::cmp::Ordering;
use std::collections::HashMap;

use windlass_model::exit::argmax;
use windlass_model::random::{Stream, draw, uniform};

use crate::request::Sampling;

/// Draws one sequence's tokens. The draw for a position depends on the seed, the position and the logits alone.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    /// Tokens of the prompt, and how often each was generated; kept only for penalties.
    seen: HashMap<u32, u32>,
}

/// Working memory of a draw, which all samplers can share.
#[derive(Debug, Default)]
pub(crate) struct SamplerScratch {
    /// After bias and penalties, `[vocabulary]`.
    logits: Vec<f32>,
    candidates: Vec<Candidate>,
}

/// A token that may be drawn.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: u32,
    /// Its logit, then its probability over that of the most likely token.
    weight: f64,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling, prompt: &[u32]) -> Self {
        let seen = if sampling.has_penalties() { prompt } else { &[] };
        Self { sampling, seen: seen.iter().map(|&token| (token, 0)).collect() }
    }

    /// The token at `position`, given its `logits`, `[vocabulary]`.
    pub(crate) fn sample(&mut self, logits: &[f32], position: u32, scratch: &mut SamplerScratch) -> u32 {
        let SamplerScratch { logits: adjusted, candidates } = scratch;
        let logits = if self.sampling.takes_logits_as_they_are() {
            logits
        } else {
            adjusted.clear();
            adjusted.extend_from_slice(logits);
            self.adjust(adjusted);
            adjusted
        };
        let token = if self.sampling.temperature == 0.0 {
            argmax(logits) as u32
        } else {
            self.draw(logits, position, candidates)
        };
        self.note(token);
        token
    }

    /// Counts a generated token, for the penalties of those that follow.
    pub(crate) fn note(&mut self, token: u32) {
        if self.sampling.has_penalties() {
            *self.seen.entry(token).or_default() += 1;
        }
    }

    /// Applies bias and penalties.
    fn adjust(&self, logits: &mut [f32]) {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
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
    }

    fn draw(&self, logits: &[f32], position: u32, candidates: &mut Vec<Candidate>) -> u32 {
        self.choose(logits, candidates);
        let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
        let [high, low, ..] = draw(self.sampling.seed, Stream::Sampling, position, 0);
        let mut left = uniform(high, low) * total;
        for candidate in &*candidates {
            left -= candidate.weight;
            if left < 0.0 {
                return candidate.token;
            }
        }
        candidates.last().expect("the most likely token always stays").token
    }

    /// Fills `candidates` with what top-k, top-p and min-p leave: by id where they leave all, else the most likely first,
    /// equals by id.
    fn choose(&self, logits: &[f32], candidates: &mut Vec<Candidate>) {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        candidates.clear();
        candidates.extend((0..).zip(logits).map(|(token, &logit)| {
            let weight = f64::from(logit) / f64::from(temperature);
            Candidate { token, weight }
        }));
        if let Some(top_k) = top_k.filter(|top_k| *top_k < candidates.len()) {
            candidates.select_nth_unstable_by(top_k - 1, Candidate::by_likelihood);
            candidates.truncate(top_k);
        }
        let largest = candidates.iter().map(|candidate| candidate.weight).fold(f64::NEG_INFINITY, f64::max);
        for candidate in candidates.iter_mut() {
            candidate.weight = (candidate.weight - largest).exp();
        }
        if top_p < 1.0 || min_p > 0.0 {
            self.truncate(candidates);
        } else if top_k.is_some() {
            candidates.sort_unstable_by(Candidate::by_likelihood);
        }
    }

    /// Keeps what top-p and min-p leave. Sorts no more than it has to look at.
    fn truncate(&self, candidates: &mut Vec<Candidate>) {
        let Sampling { top_p, min_p, .. } = self.sampling;
        let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
        let (mut before, mut kept, mut sorted) = (0.0, 0, 0);
        while kept < candidates.len() {
            if kept == sorted {
                sorted = sort_more(candidates, sorted);
            }
            // The most likely token has weight 1, so min-p compares with weights as they are.
            let weight = candidates[kept].weight;
            if kept > 0 && (before >= f64::from(top_p) * total || weight < f64::from(min_p)) {
                break;
            }
            before += weight;
            kept += 1;
        }
        candidates.truncate(kept);
    }
}

impl Candidate {
    fn by_likelihood(a: &Self, b: &Self) -> Ordering {
        b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token))
    }
}

/// Sorts on from the first `sorted` candidates, which are in their place; returns how many are then.
fn sort_more(candidates: &mut [Candidate], sorted: usize) -> usize {
    let until = (4 * sorted).max(64).min(candidates.len());
    let rest = &mut candidates[sorted..];
    let next = until - sorted;
    if next < rest.len() {
        rest.select_nth_unstable_by(next - 1, Candidate::by_likelihood);
    }
    rest[..next].sort_unstable_by(Candidate::by_likelihood);
    until
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

    impl Sampler {
        fn token(&mut self, logits: &[f32], position: u32) -> u32 {
            self.sample(logits, position, &mut SamplerScratch::default())
        }
    }

    /// How often each of four tokens is drawn.
    fn shares(sampling: &Sampling) -> [f64; 4] {
        let mut counts = [0.0; 4];
        for position in 0..20_000 {
            counts[sampler(sampling.clone()).token(&LOGITS, position) as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(sampler(Sampling::default()).token(&LOGITS, 0), 1);
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
    fn what_is_left_does_not_depend_on_how_far_it_was_sorted() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 * 0.01).collect();
        for top_p in [0.01, 0.3, 0.9, 0.999] {
            let sampler = sampler(hot(Sampling { top_p, ..Sampling::default() }));
            let mut candidates = Vec::new();
            sampler.choose(&logits, &mut candidates);
            let mut order: Vec<u32> = (0..1000).collect();
            order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
            let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            let sum = |kept: usize| {
                order[..kept].iter().map(|&token| f64::from(logits[token as usize]).exp()).sum::<f64>()
                    / total
            };
            assert!(
                candidates.iter().map(|candidate| candidate.token).eq(order[..candidates.len()].to_vec())
            );
            assert!(sum(candidates.len()) >= f64::from(top_p) - 1e-9);
            assert!(sum(candidates.len() - 1) < f64::from(top_p) + 1e-9, "more than top_p {top_p} needs");
        }
    }

    #[test]
    fn bias_and_penalties_move_the_choice() {
        let bias = Sampling { logit_bias: [(0, 5.0)].into(), ..Sampling::default() };
        assert_eq!(sampler(bias).token(&LOGITS, 0), 0);
        let repetition = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        assert_eq!(Sampler::new(repetition, &[1, 3]).token(&LOGITS, 0), 2);
        let mut frequency = sampler(Sampling { frequency_penalty: 0.6, ..Sampling::default() });
        let tokens: Vec<u32> = (0..5).map(|position| frequency.token(&LOGITS, position)).collect();
        assert_eq!(tokens, [1, 3, 1, 3, 2]);
    }

    #[test]
    fn a_draw_depends_on_seed_and_position_only() {
        let draws = |seed| {
            let mut sampler = sampler(hot(Sampling { seed, ..Sampling::default() }));
            (0..64).map(|position| sampler.token(&[0.0; 64], position)).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }
}
