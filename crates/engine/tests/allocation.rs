//! A steady tick allocates nothing.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]

mod common;

use common::{config, tiny};
use windlass_engine::{Coalesce, EngineConfig, Request, RequestId};
use windlass_model::{DepthPolicy, KvPolicy};

#[test]
fn a_steady_tick_allocates_nothing() {
    let mut engine = tiny(EngineConfig { coalesce: Coalesce::Auto, prefix_cache: true, ..config() });
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
    run(100);
    let allocated = allocation_counter::measure(|| run(200));
    assert_eq!(allocated.count_total, 0, "{allocated:?}");
}
