//! Who runs when: shared launches, priorities, deadlines, lanes taken away, prompts not computed again. What anybody gets
//! is the same as alone.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{
    Answer, alone, collect, config, goldens_folder, network, request, same, tick, tiny, with_blocks,
};
use windlass_engine::{Clock, Coalesce, Engine, EngineConfig, FinishReason, Phase, Request, RequestId};
use windlass_kernels::Cpu;
use windlass_model::{KvPolicy, Local, ModelFolder};

/// Runs what was submitted; also the order in which requests ended.
fn finish(engine: &mut Engine<Local<Cpu>>) -> (BTreeMap<RequestId, Answer>, Vec<RequestId>) {
    let (mut answers, mut order) = (BTreeMap::new(), Vec::new());
    while !engine.is_idle() {
        collect(&mut answers, tick(engine));
        order.extend(answers.iter().filter(|(_, answer)| answer.end.is_some()).map(|(id, _)| *id));
        order.dedup();
    }
    let mut ended = Vec::new();
    order.retain(|id| {
        !ended.contains(id) && {
            ended.push(*id);
            true
        }
    });
    (answers, order)
}

fn assert_same_as_alone(answer: &Answer, request: &Request) {
    let expected = alone(&mut tiny(config()), request.clone());
    assert!(same(&answer.tokens, &expected.tokens) && answer.end == expected.end, "{request:?}");
}

#[test]
fn a_row_that_waits_for_others_leaves_within_the_limit() {
    // A row of 64 iterations, beside which one of 3 is done again and again.
    let ticks = |coalesce, coalesce_limit| {
        let mut engine = tiny(EngineConfig { coalesce, coalesce_limit, ..config() });
        engine.submit(RequestId(0), request(&[1, 2], 2, 64)).unwrap();
        while tick(&mut engine).is_empty() {}
        engine.submit(RequestId(1), request(&[3], 9, 3)).unwrap();
        let (mut answers, mut ticks) = (BTreeMap::<_, Answer>::new(), 0);
        while answers.get(&RequestId(1)).is_none_or(|answer| answer.end.is_none()) {
            collect(&mut answers, tick(&mut engine));
            ticks += 1;
        }
        ticks
    };
    // The first token comes from the prompt, which does not wait.
    assert_eq!(ticks(Coalesce::Off, 16), 3 + 8 * 3);
    assert_eq!(ticks(Coalesce::Fixed(2), 16), 3 + 8 * (3 + 2));
    assert_eq!(ticks(Coalesce::Fixed(1000), 3), 3 + 8 * (3 + 3));
}

#[test]
fn rows_that_wait_share_prelude_and_coda() {
    let launches = |coalesce| {
        let mut engine = tiny(EngineConfig { coalesce, ..config() });
        for (id, depth) in [5, 6, 7, 8].into_iter().enumerate() {
            engine.submit(RequestId(id as u64), request(&[1 + id as u32], 12, depth)).unwrap();
        }
        let (mut answers, mut codas, mut most_ticks) = (BTreeMap::<_, Answer>::new(), 0, 0);
        while !engine.is_idle() {
            collect(&mut answers, tick(&mut engine));
            codas += engine.launches().iter().filter(|launch| launch.phase == Phase::Coda).count();
            most_ticks += 1;
        }
        for (id, depth) in [5, 6, 7, 8].into_iter().enumerate() {
            assert_same_as_alone(&answers[&RequestId(id as u64)], &request(&[1 + id as u32], 12, depth));
        }
        (codas, most_ticks)
    };
    let (off, off_ticks) = launches(Coalesce::Off);
    let (fixed, fixed_ticks) = launches(Coalesce::Fixed(2));
    assert!(fixed * 4 < off * 3, "{fixed} launches with waiting, {off} without");
    // A token of the deepest takes 8 ticks, and waits 2 at most.
    assert!(fixed_ticks <= off_ticks + 12 * 2, "{fixed_ticks} ticks with waiting, {off_ticks} without");
}

#[test]
fn the_higher_priority_takes_the_lane_of_the_lower_and_both_get_their_answers() {
    let mut engine = tiny(EngineConfig { max_lanes: 1, ..config() });
    let low = request(&[1, 2, 3], 6, 4);
    let high = Request { priority: 1, ..request(&[4, 5], 3, 4) };
    let later = request(&[6], 2, 4);
    engine.submit(RequestId(0), low.clone()).unwrap();
    (0..10).for_each(|_| drop(tick(&mut engine)));
    let before = tick(&mut engine);
    assert!(before.is_empty(), "the low one is in the middle of a token");
    engine.submit(RequestId(2), later).unwrap();
    engine.submit(RequestId(1), high.clone()).unwrap();
    let (answers, order) = finish(&mut engine);
    assert_eq!(order, [1, 0, 2].map(RequestId));
    assert_same_as_alone(&answers[&RequestId(1)], &high);
    // The first tokens of the low one came before it lost its lane.
    let expected = alone(&mut tiny(config()), low);
    let (got, all) = (&answers[&RequestId(0)], expected.tokens.len());
    assert!(same(&got.tokens, &expected.tokens[all - got.tokens.len()..]) && got.end == expected.end);
    assert_eq!(engine.load().preemptions_total, 1);
}

#[test]
fn when_blocks_run_out_the_youngest_of_the_lowest_priority_is_replayed() {
    // A request of 30 positions at depth 3 comes to hold 8 blocks; three begin with 4 each.
    let mut engine = tiny(with_blocks(15));
    let requests = [(0, 0), (1, 1), (2, 1)].map(|(id, priority)| {
        let request = Request { priority, ..request(&[id as u32; 4], 27, 3) };
        engine.submit(RequestId(id), request.clone()).unwrap();
        request
    });
    let (answers, order) = finish(&mut engine);
    assert_eq!(order, [1, 2, 0].map(RequestId));
    for (id, request) in (0..).map(RequestId).zip(&requests) {
        assert_same_as_alone(&answers[&id], request);
    }
    assert!(engine.load().preemptions_total > 0);
}

/// A clock that a test sets.
#[derive(Clone, Default)]
struct TestClock(Arc<AtomicU64>);

impl TestClock {
    fn set(&self, milliseconds: u64) {
        self.0.store(milliseconds, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

#[test]
fn a_request_ends_with_what_it_has_when_its_time_is_over() {
    let clock = TestClock::default();
    let folder = ModelFolder::open(goldens_folder()).unwrap();
    let limits = EngineConfig { max_lanes: 1, ..config() };
    let mut engine =
        Engine::new(Local::new(network(Cpu::new(1), &folder)), limits, Box::new(clock.clone())).unwrap();
    let timeout = |milliseconds| Some(Duration::from_millis(milliseconds));
    let running = Request { timeout: timeout(50), ..request(&[1], 9, 2) };
    engine.submit(RequestId(0), running.clone()).unwrap();
    engine.submit(RequestId(1), Request { timeout: timeout(20), ..running.clone() }).unwrap();
    let mut answers = BTreeMap::new();
    for now in [0, 10, 19, 20, 49, 50] {
        clock.set(now);
        collect(&mut answers, tick(&mut engine));
    }
    let [running_answer, waiting_answer] = [0, 1].map(|id| answers[&RequestId(id)].clone());
    let (reason, usage) = running_answer.end.unwrap();
    assert_eq!((reason, usage.completion_tokens), (FinishReason::Timeout, 2));
    let expected = alone(&mut tiny(config()), running);
    assert!(same(&running_answer.tokens, &expected.tokens[..2]));
    let (reason, usage) = waiting_answer.end.unwrap();
    assert_eq!((reason, usage.completion_tokens, waiting_answer.tokens.len()), (FinishReason::Timeout, 0, 0));
    assert!(engine.is_idle() && engine.load().blocks_used == 0);
}

#[test]
fn a_prompt_that_begins_like_one_before_computes_only_the_rest() {
    let mut engine = tiny(EngineConfig { prefix_cache: true, ..config() });
    let prompt: Vec<u32> = (0..50).collect();
    let mut core_rows = || {
        let before = engine.load().core_rows_total;
        let request = request(&prompt, 1, 4);
        assert_same_as_alone(&alone(&mut engine, request.clone()), &request);
        let load = engine.load();
        assert_eq!((load.blocks_used, load.blocks_cached), (0, 3 * 5), "three blocks at five slots are kept");
        load.core_rows_total - before
    };
    assert_eq!((core_rows(), core_rows()), (50 * 4, 2 * 4));
    // Other K/V, seed, scale or depth: nothing is shared.
    let others = [
        Request { kv: KvPolicy::Anchor(1), ..request(&prompt, 1, 4) },
        Request { latent_seed: 1, ..request(&prompt, 1, 4) },
        Request { init_scale: 0.5, ..request(&prompt, 1, 4) },
        request(&prompt, 1, 3),
    ];
    let hits = engine.load().prefix_hit_positions_total;
    for other in others {
        assert_same_as_alone(&alone(&mut engine, other.clone()), &other);
    }
    assert_eq!(engine.load().prefix_hit_positions_total, hits);
}

#[test]
fn reused_slots_are_shared_by_whole_segments_only() {
    let segments = |prefill_segment| {
        let limits = EngineConfig { prefix_cache: true, prefill_segment, ..config() };
        let mut engine = tiny(limits);
        let request = Request { kv: KvPolicy::Ring(2), ..request(&[9; 60], 2, 5) };
        let first = alone(&mut engine, request.clone());
        let second = alone(&mut engine, request);
        assert!(same(&first.tokens, &second.tokens));
        engine.load().prefix_hit_positions_total
    };
    assert_eq!([None, Some(16), Some(32), Some(64)].map(segments), [0, 48, 32, 0]);
}

#[test]
fn kept_prompts_make_room_for_new_ones() {
    let mut engine = tiny(EngineConfig { prefix_cache: true, ..with_blocks(20) });
    for id in 0..12 {
        let request = request(&[id; 40], 8, 4);
        assert_same_as_alone(&alone(&mut engine, request.clone()), &request);
        let load = engine.load();
        assert!(load.blocks_cached > 0 && load.blocks_cached <= 20 && load.blocks_used == 0);
    }
}
