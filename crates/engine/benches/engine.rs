//! `cargo bench -p windlass-engine`: the engine beside the oracle. Schedulers are compared by `windlass bench engine`.
//!
//! The two alternate within one run; figures are medians.
#![allow(clippy::unwrap_used, reason = "a benchmark that fails panics")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use windlass_engine::Request;
use windlass_kernels::Cpu;
use windlass_model::{DepthPolicy, KvPolicy, ModelFolder, Oracle, OracleRequest};

const ROUNDS: usize = 5;

fn main() {
    against_the_oracle(&ModelFolder::demo());
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
