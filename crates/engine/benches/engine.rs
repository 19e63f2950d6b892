//! `cargo bench -p windlass-engine`: what sharing launches across depths is worth, and the engine beside the oracle.
//!
//! Things compared alternate within one run; figures are medians. Both schedules replay the same recorded exit depths, so
//! that they do the same work.
#![allow(clippy::unwrap_used, reason = "a benchmark that fails panics")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use windlass_engine::{Engine, EngineConfig, Event, Request, RequestId, Schedule};
use windlass_kernels::Cpu;
use windlass_model::random::{Stream, draw, uniform};
use windlass_model::{DepthPolicy, KvPolicy, ModelFolder, Oracle, OracleRequest};

const REQUESTS: u64 = 64;
const TOKENS: usize = 32;
const LANES: [usize; 2] = [8, 64];
const MAX_DEPTH: u32 = 32;
const ROUNDS: usize = 5;

fn main() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let folder = ModelFolder::demo();
    against_the_oracle(&folder);
    println!();
    println!("{REQUESTS} requests of {TOKENS} tokens, demo model, {threads} threads, medians of {ROUNDS}:");
    println!(
        "{:28} {:>5} {:>16} {:>19} {:>6}",
        "exit depths", "lanes", "depth, tokens/s", "lockstep, tokens/s", "ratio"
    );
    for (name, distribution) in DISTRIBUTIONS {
        for max_lanes in LANES {
            let measure = |schedule| {
                let config = EngineConfig { max_lanes, max_rows: 256, schedule, ..common::config() };
                let config = EngineConfig { prefill_positions: 4096, kv_bytes: 1 << 30, ..config };
                let mut engine = common::engine(common::network(Cpu::new(threads), &folder), config);
                tokens_per_second(&mut engine, distribution)
            };
            let rounds = (0..ROUNDS).map(|_| (measure(Schedule::Depth), measure(Schedule::Lockstep)));
            let (depth, lockstep): (Vec<_>, Vec<_>) = rounds.unzip();
            let (depth, lockstep) = (median(depth), median(lockstep));
            println!("{name:28} {max_lanes:5} {depth:16.0} {lockstep:19.0} {:6.2}", depth / lockstep);
        }
    }
}

type Distribution = fn(f64) -> u32;

const DISTRIBUTIONS: [(&str, Distribution); 3] = [
    ("uniform 1 to 32", |u| 1 + (u * 32.0) as u32),
    ("geometric, mean 8, cut at 32", |u| (1 + (u.ln() / (1.0 - 1.0 / 8.0_f64).ln()) as u32).min(MAX_DEPTH)),
    ("4 or 32, even odds", |u| if u < 0.5 { 4 } else { 32 }),
];

/// All requests submitted at once, on recorded depths drawn from `distribution`.
fn tokens_per_second(engine: &mut Engine<Cpu>, distribution: Distribution) -> f64 {
    for id in 0..REQUESTS {
        let depth = |token: usize| {
            let [high, low, ..] = draw(id, Stream::Sampling, token as u32, 0);
            if token == 0 { MAX_DEPTH } else { distribution(uniform(high, low)) }
        };
        let prompt = (0..4).map(|i| 5 + (id as u32 + i) % 40).collect();
        let request = Request {
            recorded_depths: Some((0..TOKENS).map(depth).collect()),
            ignore_model_stops: true,
            ..Request::greedy(prompt, TOKENS, DepthPolicy::Fixed(MAX_DEPTH), KvPolicy::Full)
        };
        engine.submit(RequestId(id), request).unwrap();
    }
    let start = Instant::now();
    let mut tokens = 0;
    while !engine.is_idle() {
        tokens += common::tick(engine).iter().filter(|event| matches!(event, Event::Token(..))).count();
    }
    tokens as f64 / start.elapsed().as_secs_f64()
}

/// Milliseconds per token of one sequence at depth 16 on one thread.
fn against_the_oracle(folder: &ModelFolder) {
    let config = folder.config().unwrap();
    let oracle = Oracle::load(&folder.checkpoint().unwrap(), &config).unwrap();
    let mut engine = common::engine(common::network(Cpu::new(1), folder), common::config());
    let prompt: Vec<u32> = (0..16).map(|i| 5 + i % 40).collect();
    let (depth, kv, max_tokens) = (DepthPolicy::Fixed(16), KvPolicy::Full, 32);
    let request = Request {
        ignore_model_stops: true,
        init_scale: 0.0,
        ..Request::greedy(prompt.clone(), max_tokens, depth, kv)
    };
    let oracle_request = OracleRequest { prompt, max_tokens, depth, kv, forced_tokens: None };
    let per_token = |start: Instant| start.elapsed().as_secs_f64() * 1e3 / max_tokens as f64;
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        let ours = common::alone(&mut engine, request.clone());
        let engine_ms = per_token(start);
        let start = Instant::now();
        let plain = oracle.generate(&oracle_request, &|_| vec![0.0; config.hidden]);
        let oracle_ms = per_token(start);
        assert!(ours.tokens.iter().map(|t| t.token).eq(plain.iter().map(|t| t.token)), "they disagree");
        (engine_ms, oracle_ms)
    });
    let (engine_ms, oracle_ms): (Vec<_>, Vec<_>) = rounds.unzip();
    let (engine_ms, oracle_ms) = (median(engine_ms), median(oracle_ms));
    println!("One sequence at depth 16, demo model, prompt of 16, medians of {ROUNDS}:");
    println!(
        "engine {engine_ms:.3} ms a token, oracle {oracle_ms:.3} ms, ratio {:.1}",
        oracle_ms / engine_ms
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
