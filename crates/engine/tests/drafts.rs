//! Positions that run on guesses of the tokens before them: sooner done, the same answers, in rows that others leave.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{
    Answer, alone, collect, config, goldens_folder, network, request, same, tick, tiny, tiny_ahead,
    tiny_on_stages, with_blocks,
};
use windlass_engine::{Clock, Coalesce, Draft, Engine, EngineConfig, Load, Request, RequestId, Sampling};
use windlass_kernels::Cpu;
use windlass_model::{AdaptiveDepth, Criterion, DepthPolicy, KvPolicy, Local, ModelFolder, Runner};

const DEPTH: u32 = 16;

fn every(iterations: u32) -> EngineConfig {
    EngineConfig { draft: Draft::Every(iterations), ..config() }
}

/// Whose latents hardly change from depth 4 on.
fn settled() -> Request {
    request(&[1, 2, 3], 24, DEPTH)
}

fn adaptive(criterion: Criterion) -> DepthPolicy {
    DepthPolicy::Adaptive(AdaptiveDepth { criterion, threshold: 0.02, min: 2, max: DEPTH, every: 1 })
}

/// What a request gets alone, in how many ticks, and what the engine says of itself at the end.
fn run<R: Runner>(mut engine: Engine<R>, request: &Request) -> (Answer, usize, Load) {
    engine.submit(RequestId(0), request.clone()).unwrap();
    let (mut answers, mut ticks) = (BTreeMap::new(), 0);
    while !engine.is_idle() {
        collect(&mut answers, tick(&mut engine));
        ticks += 1;
    }
    (answers.remove(&RequestId(0)).unwrap(), ticks, engine.load())
}

#[test]
fn one_sequence_takes_fewer_ticks_and_gets_the_same() {
    let (expected, ticks, _) = run(tiny(config()), &settled());
    assert_eq!(ticks, 24 * DEPTH as usize);
    let (answer, fewer, load) = run(tiny(every(4)), &settled());
    assert_eq!(answer, expected);
    assert!(2 * fewer < ticks, "{fewer} ticks with drafts, {ticks} without");
    assert!(load.drafts_kept_total > 12, "{load:?}");
    // Here all guesses come true: each position begins eight iterations behind the one before it, and no draft is given up.
    let (_, ticks, load) = run(tiny(every(8)), &settled());
    assert_eq!((ticks, load.drafts_total, load.drafts_kept_total), (16 + 16 + 22 * 8, 22, 22));
}

#[test]
fn wrong_guesses_change_nothing() {
    // At temperature 5 a draw follows every little change of the logits.
    let sampling = Sampling { temperature: 5.0, seed: 3, frequency_penalty: 0.4, ..Sampling::default() };
    for depth in [DepthPolicy::Fixed(DEPTH), adaptive(Criterion::LatentDiff), adaptive(Criterion::Cosine)] {
        let request = Request { sampling: sampling.clone(), depth, ..settled() };
        let expected = alone(&mut tiny(config()), request.clone());
        for (answer, _, load) in [
            run(tiny(every(1)), &request),
            run(tiny_ahead(every(1)), &request),
            run(tiny_on_stages(vec![Cpu::new(1), Cpu::new(1)], every(1)), &request),
        ] {
            assert!(same(&answer.tokens, &expected.tokens) && answer.end == expected.end);
            let (all, kept) = (load.drafts_total, load.drafts_kept_total);
            assert!(0 < kept && kept < all, "{kept} of {all} drafts were kept");
        }
    }
}

#[test]
fn nothing_is_guessed_where_drafts_would_not_find_what_they_read() {
    for request in [
        Request { kv: KvPolicy::Ring(4), ..settled() },
        Request { kv: KvPolicy::Anchor(4), ..settled() },
        Request { depth: adaptive(Criterion::Kl), ..settled() },
    ] {
        let (answer, _, load) = run(tiny(every(2)), &request);
        assert_eq!((answer.tokens.len(), load.drafts_total), (24, 0), "{request:?}");
    }
    // A ring of all iterations is no ring.
    assert!(run(tiny(every(2)), &Request { kv: KvPolicy::Ring(DEPTH), ..settled() }).2.drafts_total > 0);
}

#[test]
fn drafts_take_what_others_leave() {
    // As many rows as lanes: whoever is no draft runs in every tick, as without drafts.
    let limits = |draft| EngineConfig { max_lanes: 3, max_rows: 3, draft, ..config() };
    let ticks = |config| {
        let mut engine = tiny(config);
        (0..3).for_each(|id| engine.submit(RequestId(id), settled()).unwrap());
        let mut ticks = 0;
        while !engine.is_idle() {
            tick(&mut engine);
            ticks += 1;
        }
        let load = engine.load();
        (ticks, load.core_rows_total, load.drafts_total)
    };
    let (with, without) = (ticks(limits(Draft::Every(4))), ticks(limits(Draft::Off)));
    assert_eq!((with.0, with.1), (without.0, without.1));
    assert!(with.2 > 0 && without.2 == 0, "nothing was guessed");
}

#[test]
fn drafts_take_no_more_memory_than_their_request_will() {
    let blocks = settled().kv_blocks();
    let (expected, ..) = run(tiny(config()), &settled());
    let (answer, _, load) =
        run(tiny(EngineConfig { draft: Draft::Every(1), ..with_blocks(blocks) }), &settled());
    assert_eq!((answer, load.preemptions_total), (expected, 0));
    assert!(load.drafts_kept_total > 0);
    assert_eq!((load.rows, load.blocks_used), (0, 0));
}

#[test]
fn a_sequence_alone_waits_for_none_of_its_drafts() {
    let depths: Vec<_> = std::iter::once(DEPTH).chain((1..24).map(|token| 5 + token % 3)).collect();
    let request = Request { recorded_depths: Some(depths), ..settled() };
    let ticks = |coalesce| run(tiny(EngineConfig { coalesce, ..every(4) }), &request).1;
    assert_eq!(ticks(Coalesce::Auto), ticks(Coalesce::Off));
}

/// Every look at it is a millisecond later, so that a launch of any rows takes the same time.
#[derive(Debug, Default)]
struct Steps(AtomicU64);

impl Clock for Steps {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[test]
fn auto_guesses_where_rows_cost_nothing() {
    let ticks = |draft| {
        let folder = ModelFolder::open(goldens_folder()).unwrap();
        let runner = Local::new(network(Cpu::new(1), &folder));
        let config = EngineConfig { draft, ..config() };
        let engine = Engine::new(runner, config, Box::new(Steps::default())).unwrap();
        run(engine, &Request { max_tokens: 60, ..settled() })
    };
    let ((expected, all, _), (answer, fewer, load)) = (ticks(Draft::Off), ticks(Draft::Auto));
    assert_eq!(answer, expected);
    assert!(2 * fewer < all, "{fewer} ticks of {all}: {load:?}");
}

#[test]
fn a_draft_does_not_pass_a_row_that_waits_for_its_turn() {
    // The second position is done long before the first, and the third could go on behind it. Others leave no room for the first at times.
    let depths = [16, 9, 2, 9, 2, 9, 2, 9, 2, 9, 2, 9];
    let recorded_depths = Some(depths.to_vec());
    let long = Request { recorded_depths, ..request(&[1, 2], depths.len(), DEPTH) };
    let expected = alone(&mut tiny(config()), long.clone());
    let first =
        |priority, max_tokens| Request { priority, kv: KvPolicy::Ring(1), ..request(&[7, 8], max_tokens, 1) };
    let limits = EngineConfig { max_rows: 4, prefill_chunk: 1, draft: Draft::Every(1), ..config() };
    for ahead in [false, true] {
        let mut engine = if ahead { tiny_ahead(limits.clone()) } else { tiny(limits.clone()) };
        engine.submit(RequestId(0), long.clone()).unwrap();
        let mut answers = BTreeMap::new();
        let mut id = 0;
        while answers.get(&RequestId(0)).is_none_or(|answer: &Answer| answer.end.is_none()) {
            collect(&mut answers, tick(&mut engine));
            // Three that decode and one prompt after the other.
            if engine.load().running < 5 && id < 400 {
                id += 1;
                engine.submit(RequestId(id), first(1, if id % 3 == 0 { 1 } else { 6 })).unwrap();
            }
        }
        assert!(engine.load().drafts_kept_total > 0);
        assert!(same(&answers[&RequestId(0)].tokens, &expected.tokens), "ahead: {ahead}");
    }
}
