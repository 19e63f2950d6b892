//! A steady tick allocates nothing.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]

mod common;

use common::{config, cpu_groups, cpus, tiny, tiny_on_stages, tiny_on_stages_of_ranks, tiny_ranks};
use windlass_engine::{Coalesce, Draft, Engine, EngineConfig, Event, Load, Request, RequestId};
use windlass_kernels::CpuConfig;
use windlass_model::{Depth, DepthPolicy, KvPolicy, Runner};

fn steady() -> EngineConfig {
    EngineConfig { coalesce: Coalesce::Auto, prefix_cache: true, ..config() }
}

#[test]
fn a_steady_tick_allocates_nothing() {
    check(tiny(steady()));
}

#[test]
fn a_steady_tick_over_stages_allocates_nothing() {
    check(tiny_on_stages(cpus(2), steady()));
}

#[test]
fn nor_does_one_over_stages_of_ranks() {
    check(tiny_on_stages_of_ranks(cpu_groups(2, 2, CpuConfig::new(1)), steady()));
}

/// Nothing on the engine's own thread, which is rank 0.
#[test]
fn nor_does_one_of_several_ranks() {
    check(tiny_ranks(2, CpuConfig::new(2), steady()));
}

#[test]
fn nor_does_one_with_drafts() {
    for interval in [3, 4] {
        let limits = || EngineConfig { draft: Draft::Every(interval), max_rows: 256, ..steady() };
        assert!(check(tiny(limits())) > 0);
        assert!(check(tiny_on_stages(cpus(2), limits())) > 0);
    }
}

#[test]
fn nor_does_one_in_which_more_rows_leave_than_ever_before() {
    let off = || EngineConfig { coalesce: Coalesce::Off, ..steady() };
    check_together(tiny(off()));
    check_together(tiny_ranks(2, CpuConfig::new(2), off()));
}

/// How many sequences run, and how many tokens each may generate, which is more than the ticks here make.
const SEQUENCES: u32 = 12;
const TOKENS: usize = 200;

fn check<R: Runner>(engine: Engine<R>) -> u64 {
    let depth = |id| DepthPolicy::Fixed(3 + id);
    check_requests(engine, 0, |id| Request::greedy(vec![id; 5], TOKENS, depth(id), KvPolicy::Full))
}

/// Sequences that begin, and so leave, one tick after the other, until all leave in the same.
fn check_together<R: Runner>(engine: Engine<R>) {
    const DEPTH: Depth = 16;
    const TOGETHER_FROM: usize = 24;
    let depth = |token, id| if token == TOGETHER_FROM { DEPTH - id } else { DEPTH };
    check_requests(engine, 1, |id| Request {
        recorded_depths: Some((0..TOKENS).map(|token| depth(token, id)).collect()),
        ..Request::greedy(vec![id; 5], TOKENS, DepthPolicy::Fixed(DEPTH), KvPolicy::Full)
    });
}

/// `between` ticks between one request and the next. Returns how many drafts there were.
fn check_requests<R: Runner>(mut engine: Engine<R>, between: usize, request: impl Fn(u32) -> Request) -> u64 {
    let mut events = Vec::with_capacity(64);
    let run = |engine: &mut Engine<R>, ticks: usize, events: &mut Vec<Event>| {
        for _ in 0..ticks {
            engine.tick(events);
            events.clear();
        }
    };
    for id in 0..SEQUENCES {
        let request = Request { ignore_model_stops: true, ..request(id) };
        engine.submit(RequestId(id.into()), request).unwrap();
        run(&mut engine, between, &mut events);
    }
    run(&mut engine, 300, &mut events);
    let allocated = allocation_counter::measure(|| run(&mut engine, 200, &mut events));
    assert_eq!(allocated.count_total, 0, "{allocated:?}");
    let Load { running, drafts_total, .. } = engine.load();
    assert_eq!(running, SEQUENCES as usize, "not all have run all the time");
    drafts_total
}
