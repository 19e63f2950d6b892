//! A steady tick allocates nothing.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]

mod common;

use common::{config, cpu_groups, cpus, tiny, tiny_on_stages, tiny_on_stages_of_ranks, tiny_ranks};
use windlass_engine::{Coalesce, Engine, EngineConfig, Request, RequestId};
use windlass_kernels::CpuConfig;
use windlass_model::{DepthPolicy, KvPolicy, Runner};

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

fn check<R: Runner>(mut engine: Engine<R>) {
    for id in 0..6 {
        let request = Request {
            ignore_model_stops: true,
            ..Request::greedy(vec![id; 5], 200, DepthPolicy::Fixed(3 + id), KvPolicy::Full)
        };
        engine.submit(RequestId(id.into()), request).unwrap();
    }
    let mut events = Vec::with_capacity(64);
    let mut run = |ticks: usize| {
        for _ in 0..ticks {
            engine.tick(&mut events);
            events.clear();
        }
    };
    run(300);
    let allocated = allocation_counter::measure(|| run(200));
    assert_eq!(allocated.count_total, 0, "{allocated:?}");
}
