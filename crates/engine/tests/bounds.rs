//! Limits hold, and everything taken is given back.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]

mod common;

use std::collections::BTreeMap;

use common::{alone, collect, config, tick, tiny};
use windlass_engine::{EngineConfig, InvalidRequest, Request, RequestId, Sampling, SubmitError};
use windlass_model::{AdaptiveDepth, Criterion, DepthPolicy, KvPolicy};

fn request() -> Request {
    Request::greedy(vec![1, 2, 3], 4, DepthPolicy::Fixed(3), KvPolicy::Full)
}

#[test]
fn a_cancelled_request_leaves_before_the_next_tick() {
    let mut engine = tiny(config());
    // In the middle of prefill, with blocks promised and not taken, and in decode.
    for ticks in 1..8 {
        engine.submit(RequestId(1), request()).unwrap();
        for _ in 0..ticks {
            tick(&mut engine);
        }
        assert!(engine.load().blocks_used > 0);
        engine.cancel(RequestId(1));
        let load = engine.load();
        assert_eq!((load.running, load.blocks_used, load.rows, load.queued_core_iterations), (0, 0, 0, 0));
        // The tick also asserts that no promise was kept.
        assert_eq!(tick(&mut engine), []);
    }
}

#[test]
fn the_queue_is_bounded_and_says_so() {
    let mut engine = tiny(EngineConfig { max_waiting: 2, ..config() });
    for id in 0..2 {
        engine.submit(RequestId(id), request()).unwrap();
    }
    assert_eq!(engine.submit(RequestId(2), request()), Err(SubmitError::QueueFull { limit: 2 }));
    tick(&mut engine);
    engine.submit(RequestId(2), request()).unwrap();
}

#[test]
fn requests_wait_for_blocks_and_all_finish() {
    let block = 16 * 4 * 2 * 80 * 4;
    let mut engine = tiny(EngineConfig { kv_bytes: 5 * block, ..config() });
    for id in 0..6 {
        engine.submit(RequestId(id), request()).unwrap();
    }
    let mut answers = BTreeMap::new();
    while !engine.is_idle() {
        collect(&mut answers, tick(&mut engine));
        assert!(engine.load().blocks_used <= 5);
    }
    assert!(answers.len() == 6 && answers.values().all(|answer| answer.end.is_some()));
}

#[test]
fn a_request_that_can_never_fit_is_refused_at_once() {
    let block = 16 * 4 * 2 * 80 * 4;
    let mut engine = tiny(EngineConfig { kv_bytes: 3 * block, ..config() });
    let Err(SubmitError::TooLarge(error)) = engine.submit(RequestId(0), request()) else {
        panic!("four blocks do not fit into three")
    };
    assert_eq!(error.field, "max_tokens");
    assert!(error.reason.contains("need 4 K/V blocks and there are 3"), "{error}");
    let mut engine = tiny(EngineConfig { prefill_positions: 2, prefill_chunk: 2, ..config() });
    let Err(SubmitError::TooLarge(error)) = engine.submit(RequestId(0), request()) else {
        panic!("three tokens are more than two")
    };
    assert_eq!(error.to_string(), "prompt: it has 3 tokens: use at most 2");
}

#[test]
fn decoding_lanes_advance_every_tick_beside_a_long_prefill() {
    let mut engine = tiny(EngineConfig { max_rows: 8, prefill_chunk: 8, ..config() });
    engine.submit(RequestId(0), Request { max_tokens: 20, ..request() }).unwrap();
    let mut answers = BTreeMap::new();
    while answers.is_empty() {
        collect(&mut answers, tick(&mut engine));
    }
    let long = Request { prompt: vec![7; 200], ..request() };
    engine.submit(RequestId(1), long).unwrap();
    let mut ticks = 0;
    while answers[&RequestId(0)].end.is_none() {
        collect(&mut answers, tick(&mut engine));
        ticks += 1;
    }
    assert_eq!(ticks, 19 * 3, "a token takes as many ticks as its depth");
    assert!(!answers.contains_key(&RequestId(1)));
}

#[test]
fn the_work_owed_counts_down_to_nothing() {
    let mut engine = tiny(config());
    engine.submit(RequestId(0), request()).unwrap();
    let mut owed = engine.load().queued_core_iterations;
    assert_eq!(owed, (3 + 3) * 3);
    while !engine.is_idle() {
        tick(&mut engine);
        let now = engine.load().queued_core_iterations;
        assert!(now < owed, "{now} after {owed}");
        owed = now;
    }
    assert_eq!(owed, 0);
}

#[test]
fn usage_adds_up() {
    let mut engine = tiny(config());
    let answer = alone(&mut engine, request());
    let (_, usage) = answer.end.unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (3, 4));
    assert_eq!((usage.prompt_core_iterations, usage.completion_core_iterations), (2 * 3, 4 * 3));
    assert_eq!(engine.load().core_rows_total, 6 + 12);
}

#[test]
fn bad_requests_name_field_value_and_remedy() {
    let adaptive = |threshold, min, max| {
        let criterion = Criterion::LatentDiff;
        DepthPolicy::Adaptive(AdaptiveDepth { criterion, threshold, min, max, every: 1 })
    };
    let sampling = |sampling| Request { sampling, ..request() };
    let plain = Sampling::default;
    let table = [
        (Request { prompt: vec![], ..request() }, "prompt", "at least one"),
        (Request { prompt: vec![256], ..request() }, "prompt", "token 256 is not in the vocabulary"),
        (Request { prompt: vec![0; 257], ..request() }, "prompt", "257 tokens: use at most 255"),
        (Request { max_tokens: 0, ..request() }, "max_tokens", "use at least 1"),
        (Request { max_tokens: 254, ..request() }, "max_tokens", "use at most 253"),
        (Request { depth: DepthPolicy::Fixed(0), ..request() }, "depth", "use 1 to 64"),
        (Request { depth: DepthPolicy::Fixed(65), ..request() }, "depth", "65 is out of range"),
        (Request { depth: adaptive(0.0, 1, 4), ..request() }, "depth.adaptive.threshold", "above 0"),
        (
            Request { depth: adaptive(0.1, 5, 4), ..request() },
            "depth.adaptive.min",
            "use 1 to max, which is 4",
        ),
        (Request { kv: KvPolicy::Ring(0), ..request() }, "kv", "ring 0"),
        (Request { logprobs: Some(21), ..request() }, "logprobs", "use 0 to 20"),
        (Request { init_scale: f32::NAN, ..request() }, "init_scale", "NaN"),
        (Request { stop_tokens: [999].into(), ..request() }, "stop_token_ids", "999"),
        (sampling(Sampling { temperature: -1.0, ..plain() }), "temperature", "-1"),
        (sampling(Sampling { top_p: 0.0, ..plain() }), "top_p", "above 0"),
        (sampling(Sampling { top_k: Some(0), ..plain() }), "top_k", "at least 1"),
        (sampling(Sampling { min_p: 1.5, ..plain() }), "min_p", "from 0 to 1"),
        (sampling(Sampling { repetition_penalty: 0.0, ..plain() }), "repetition_penalty", "above 0"),
        (sampling(Sampling { logit_bias: [(300, 1.0)].into(), ..plain() }), "logit_bias", "300"),
        (sampling(Sampling { logit_bias: [(3, f32::INFINITY)].into(), ..plain() }), "logit_bias.3", "inf"),
    ];
    let mut engine = tiny(config());
    for (request, field, part) in table {
        let Err(SubmitError::Invalid(InvalidRequest { field: at, reason })) =
            engine.submit(RequestId(0), request)
        else {
            panic!("a bad {field} was accepted")
        };
        assert_eq!(at, field, "{reason}");
        assert!(reason.contains(part), "{field}: '{reason}' lacks '{part}'");
    }
    assert!(engine.is_idle());
}
