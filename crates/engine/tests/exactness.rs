//! What a request gets is a function of the request alone.
//!
//! Random schedules: requests of mixed prompts, depth policies, K/V policies, priorities and seeds arrive at random ticks
//! at an engine with random limits and schedule, some are cancelled. Prompts begin alike, so that the prefix cache is hit,
//! and K/V blocks are short, so that lanes are taken away and replayed. Every answer must equal, bit for bit, that of the
//! same request alone, without a cache.
//! `WINDLASS_SCHEDULES` sets how many schedules run (200 by default), `WINDLASS_FIRST_SCHEDULE` where they begin.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]

mod common;

use std::collections::BTreeMap;
use std::ops::Range;

use common::{Answer, alone, collect, config, engine, goldens_folder, network, same, tick, tiny, tiny_on};
use windlass_engine::{Coalesce, Engine, EngineConfig, Request, RequestId, Sampling, Schedule, block_bytes};
use windlass_kernels::{Cpu, CpuConfig, WeightFormat};
use windlass_model::random::{Stream, draw};
use windlass_model::{AdaptiveDepth, Criterion, DepthPolicy, KvPolicy, ModelFolder};

/// Random choices of one schedule.
struct Choices {
    schedule: u64,
    drawn: u32,
}

impl Choices {
    fn below(&mut self, bound: usize) -> usize {
        self.drawn += 1;
        draw(self.schedule, Stream::Sampling, self.drawn, 0)[0] as usize % bound
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// `block`: bytes of a K/V block. The largest request takes 40.
    fn engine(&mut self, block: usize) -> EngineConfig {
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
            prefix_cache: !self.one_in(4),
            prefill_segment: [None, Some(16), Some(32)][self.below(3)],
            ..config()
        }
    }

    fn depth(&mut self) -> DepthPolicy {
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

    fn request(&mut self) -> Request {
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
            seed: self.below(5) as u64,
            ..Sampling::default()
        }
    }
}

/// A request with the tick it arrives at and, for some, the tick it is cancelled at.
struct Visit {
    request: Request,
    arrives: usize,
    cancelled: Option<usize>,
}

fn visits(choices: &mut Choices) -> Vec<Visit> {
    let count = choices.between(2, 9);
    let mut visit = || {
        let arrives = choices.below(30);
        let cancelled = choices.one_in(5).then(|| arrives + choices.between(1, 25));
        Visit { request: choices.request(), arrives, cancelled }
    };
    (0..count).map(|_| visit()).collect()
}

/// Runs a schedule; answers of cancelled requests may be cut short.
fn together(engine: &mut Engine<Cpu>, visits: &[Visit]) -> BTreeMap<RequestId, Answer> {
    let mut answers = BTreeMap::new();
    let mut ticks = 0;
    loop {
        for (id, visit) in (0..).map(RequestId).zip(visits) {
            if visit.arrives == ticks {
                engine.submit(id, visit.request.clone()).unwrap();
            }
            if visit.cancelled == Some(ticks) {
                engine.cancel(id);
            }
        }
        collect(&mut answers, tick(engine));
        ticks += 1;
        if engine.is_idle() && visits.iter().all(|visit| visit.arrives < ticks) {
            return answers;
        }
        assert!(ticks < 100_000, "the schedule does not end");
    }
}

fn environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Runs schedules on backends of one kind, and compares every answer with that of the same request alone.
fn check(schedules: Range<u64>, cpu: impl Fn() -> Cpu) {
    let block = block_bytes(&ModelFolder::open(goldens_folder()).unwrap().config().unwrap());
    let mut single = [None, Some(16), Some(32)].map(|prefill_segment| {
        (prefill_segment, tiny_on(cpu(), EngineConfig { prefill_segment, ..config() }))
    });
    let (mut compared, mut preempted, mut reused) = (0, 0, 0);
    for schedule in schedules {
        let mut choices = Choices { schedule, drawn: 0 };
        let config = choices.engine(block);
        let mut engine = tiny_on(cpu(), config.clone());
        let visits = visits(&mut choices);
        let mut answers = together(&mut engine, &visits);
        preempted += engine.load().preemptions_total;
        reused += engine.load().prefix_hit_positions_total;
        let single = single.iter_mut().find(|(segment, _)| *segment == config.prefill_segment).unwrap();
        for (id, visit) in (0..).map(RequestId).zip(&visits) {
            let mut expected = alone(&mut single.1, Request { report_logits: true, ..visit.request.clone() });
            if !visit.request.report_logits {
                // Then a greedy request takes its tokens from the head without anyone looking at logits.
                expected.tokens.iter_mut().for_each(|token| token.logits = None);
            }
            let got = answers.remove(&id).unwrap_or_default();
            let length = if got.end.is_some() { expected.tokens.len() } else { got.tokens.len() };
            assert!(got.end.is_some() || visit.cancelled.is_some(), "schedule {schedule}: {id:?} has no end");
            let equal = same(&got.tokens, &expected.tokens[..length]);
            assert!(equal, "schedule {schedule}: {id:?} differs: {:?} under {config:?}", visit.request);
            assert!(
                got.end.is_none() || got.end == expected.end,
                "schedule {schedule}: {id:?} ended differently"
            );
            compared += length;
        }
    }
    println!("{compared} tokens compared, {preempted} preemptions, {reused} positions reused");
    assert!(
        compared > 0 && preempted > 0 && reused > 0,
        "{compared} {preempted} {reused}: a part was not tried"
    );
}

#[test]
fn answers_do_not_depend_on_the_schedule() {
    let first = environment("WINDLASS_FIRST_SCHEDULE", 0);
    check(first..first + environment("WINDLASS_SCHEDULES", 200), || Cpu::new(1));
}

#[test]
fn answers_do_not_depend_on_the_schedule_in_any_format_of_weights() {
    for weights in [WeightFormat::Bf16, WeightFormat::Int8] {
        check(0..40, || Cpu::with(CpuConfig { weights, ..CpuConfig::new(2) }));
    }
}

#[test]
fn replayed_depths_give_the_tokens_of_the_run_they_were_recorded_from() {
    let mut engine = tiny(config());
    for schedule in 0..40 {
        let mut choices = Choices { schedule, drawn: 7 };
        let request = Request { recorded_depths: None, ..choices.request() };
        let first = alone(&mut engine, request.clone());
        let mut depths: Vec<_> = first.tokens.iter().map(|token| token.depth).collect();
        depths.resize(request.max_tokens, 1);
        let second = alone(&mut engine, Request { recorded_depths: Some(depths), ..request });
        for (a, b) in first.tokens.iter().zip(&second.tokens) {
            assert_eq!((a.token, a.depth, &a.logits), (b.token, b.depth, &b.logits), "schedule {schedule}");
        }
        assert_eq!(first.end, second.end);
    }
}

#[test]
fn answers_do_not_depend_on_the_number_of_threads() {
    let folder = ModelFolder::open(goldens_folder()).unwrap();
    let [mut one, mut three] = [1, 3].map(|threads| engine(network(Cpu::new(threads), &folder), config()));
    for schedule in 0..20 {
        let request = Choices { schedule, drawn: 0 }.request();
        let [a, b] = [&mut one, &mut three].map(|engine| alone(engine, request.clone()));
        assert!(same(&a.tokens, &b.tokens) && a.end == b.end, "{request:?}");
    }
}
