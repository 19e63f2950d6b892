//! What a sequence's tokens are drawn by.

use std::collections::HashMap;

use windlass_kernels::{Draw, DrawScratch, LogitChange, draw};
use windlass_model::random::{Stream, draw as random};

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
    changes: Vec<LogitChange>,
    draw: DrawScratch,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling, prompt: &[u32]) -> Self {
        let seen = if sampling.has_penalties() { prompt } else { &[] };
        Self { sampling, seen: seen.iter().map(|&token| (token, 0)).collect() }
    }

    /// What the token at `position` is drawn by; appends to `changes` how logits change before.
    pub(crate) fn draw(&self, position: u32, changes: &mut Vec<LogitChange>) -> Draw {
        let Sampling { logit_bias, temperature, top_k, top_p, min_p, seed, .. } = &self.sampling;
        let first_change = changes.len();
        changes
            .extend(logit_bias.iter().map(|(&token, &bias)| LogitChange { bias, ..self.penalties(token) }));
        let others = self.seen.keys().filter(|token| !logit_bias.contains_key(token));
        changes.extend(others.map(|&token| self.penalties(token)));
        let [high, low, ..] = random(*seed, Stream::Sampling, position, 0);
        Draw {
            at: u64::from(high) << 32 | u64::from(low),
            temperature: *temperature,
            top_k: top_k.map_or(u32::MAX, |top_k| u32::try_from(top_k).unwrap_or(u32::MAX)),
            top_p: *top_p,
            min_p: *min_p,
            first_change: first_change as u32,
            changes: (changes.len() - first_change) as u32,
        }
    }

    /// The token at `position`, given its `logits`, `[vocabulary]`.
    pub(crate) fn sample(&mut self, logits: &[f32], position: u32, scratch: &mut SamplerScratch) -> u32 {
        let SamplerScratch { logits: adjusted, changes, draw: scratch } = scratch;
        adjusted.clear();
        adjusted.extend_from_slice(logits);
        changes.clear();
        let by = self.draw(position, changes);
        let token = draw(adjusted, &by, changes, scratch);
        self.note(token);
        token
    }

    /// Counts a generated token, for the penalties of those that follow.
    pub(crate) fn note(&mut self, token: u32) {
        if self.sampling.has_penalties() {
            *self.seen.entry(token).or_default() += 1;
        }
    }

    /// How a token's logit changes for what was seen of it.
    fn penalties(&self, token: u32) -> LogitChange {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        let unseen = LogitChange { output: token, bias: 0.0, repetition: 1.0, penalty: 0.0 };
        match self.seen.get(&token) {
            None => unseen,
            Some(0) => LogitChange { repetition: repetition_penalty, ..unseen },
            Some(&count) => LogitChange {
                repetition: repetition_penalty,
                penalty: presence_penalty + frequency_penalty * count as f32,
                ..unseen
            },
        }
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
