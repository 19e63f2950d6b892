//! Requests and limits drawn at random, the same for the same schedule.

use windlass_engine::{Coalesce, Draft, EngineConfig, Request, Sampling, Schedule};
use windlass_model::random::{Stream, draw};
use windlass_model::{AdaptiveDepth, Criterion, DepthPolicy, KvPolicy};

use super::config;

/// Random choices of one schedule.
pub struct Choices {
    pub schedule: u64,
    pub drawn: u32,
}

impl Choices {
    pub fn below(&mut self, bound: usize) -> usize {
        self.drawn += 1;
        draw(self.schedule, Stream::Sampling, self.drawn, 0)[0] as usize % bound
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// `block`: bytes of a K/V block. The largest request takes 40.
    pub fn engine(&mut self, block: usize) -> EngineConfig {
        let most_blocks = if self.one_in(2) { 60 } else { 400 };
        EngineConfig {
            max_lanes: self.between(1, 6),
            max_rows: self.between(1, 40),
            prefill_chunk: self.between(1, 24),
            prefill_positions: self.between(48, 96),
            kv_bytes: self.between(40, most_blocks) * block,
            schedule: match self.below(6) {
                0 => Schedule::Lockstep,
                1 => Schedule::Homogeneous,
                _ => Schedule::Depth,
            },
            coalesce: match self.below(3) {
                0 => Coalesce::Off,
                1 => Coalesce::Fixed(self.between(1, 5) as u32),
                _ => Coalesce::Auto,
            },
            draft: Draft::Every(self.between(1, 4) as u32),
            prefix_cache: !self.one_in(4),
            prefill_segment: [None, Some(16), Some(32)][self.below(3)],
            ..config()
        }
    }

    pub fn depth(&mut self) -> DepthPolicy {
        let max = self.between(1, 9) as u32;
        if self.one_in(3) {
            return DepthPolicy::Fixed(max);
        }
        let criterion = Criterion::ALL[self.below(Criterion::ALL.len())];
        let thresholds = match criterion {
            Criterion::LatentDiff => [0.3, 0.05],
            Criterion::Cosine => [0.1, 0.01],
            Criterion::Kl | Criterion::MinpKl => [0.1, 0.02],
            Criterion::EntropyDiff => [0.05, 0.01],
            Criterion::ArgmaxStability => [2.0, 3.0],
        };
        let threshold = thresholds[self.below(2)];
        let min = self.between(1, max as usize) as u32;
        let every = self.between(1, 3) as u32;
        DepthPolicy::Adaptive(AdaptiveDepth { criterion, threshold, min, max, every })
    }

    pub fn request(&mut self) -> Request {
        // Half of a schedule's requests agree in what their prompts' K/V depend on, and in how these begin.
        let alike = self.one_in(2);
        let length = if alike || self.one_in(3) { self.between(20, 45) } else { self.between(1, 12) };
        let own = if alike { self.between(16, length) } else { self.below(length + 1) };
        let prompt = (0..length).map(|i| if i < own { i as u32 } else { self.below(256) as u32 }).collect();
        let (depth, kv) = if alike { self.alike() } else { (self.depth(), self.kv()) };
        let max_tokens = self.between(1, 10);
        let recorded = self.one_in(6).then(|| {
            let later = (1..max_tokens).map(|_| self.between(1, depth.max() as usize) as u32);
            std::iter::once(depth.max()).chain(later.collect::<Vec<_>>()).collect()
        });
        Request {
            sampling: self.sampling(),
            logprobs: self.one_in(2).then(|| self.below(4)),
            report_logits: self.one_in(2),
            exit_values: self.one_in(2),
            latent_seed: if alike { 0 } else { self.below(3) as u64 },
            init_scale: if alike { 1.0 } else { [0.0, 0.5, 1.0][self.below(3)] },
            priority: self.below(3) as i32,
            recorded_depths: recorded,
            stop_tokens: (0..self.below(20)).map(|_| self.below(256) as u32).collect(),
            ..Request::greedy(prompt, max_tokens, depth, kv)
        }
    }

    fn kv(&mut self) -> KvPolicy {
        match self.below(4) {
            0 => KvPolicy::Ring(self.between(1, 4) as u32),
            1 => KvPolicy::Anchor(self.between(1, 4) as u32),
            _ => KvPolicy::Full,
        }
    }

    /// The policies that requests of this schedule share.
    fn alike(&self) -> (DepthPolicy, KvPolicy) {
        let mut shared = Self { schedule: self.schedule, drawn: 1_000_000 };
        (shared.depth(), shared.kv())
    }

    fn sampling(&mut self) -> Sampling {
        Sampling {
            temperature: [0.0, 0.7, 1.3][self.below(3)],
            top_k: self.one_in(3).then(|| self.between(1, 20)),
            top_p: [1.0, 0.9][self.below(2)],
            min_p: [0.0, 0.05][self.below(2)],
            repetition_penalty: [1.0, 1.3][self.below(2)],
            presence_penalty: [0.0, 0.4][self.below(2)],
            frequency_penalty: [0.0, 0.3][self.below(2)],
            seed: self.below(5) as u64,
            ..Sampling::default()
        }
    }
}
