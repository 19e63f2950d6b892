//! An engine whose model is cut into stages: several launches under way, none of which changes what anybody gets.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]

mod common;

use std::collections::BTreeMap;

use common::{alone, collect, config, cpus, request, same, tick, tiny, tiny_on_stages, with_blocks};
use windlass_engine::{EngineConfig, Request, RequestId, Schedule};

#[test]
fn lanes_are_dealt_out_so_that_every_stage_has_a_launch() {
    let mut engine = tiny_on_stages(cpus(2), config());
    for id in 0..6 {
        engine.submit(RequestId(id), request(&[id as u32], 40, 8)).unwrap();
    }
    // A tick starts what can be started and ends when one batch is done: each runs half of the rows.
    let before = engine.load().core_rows_total;
    for _ in 0..9 {
        tick(&mut engine);
    }
    let load = engine.load();
    assert_eq!(load.core_rows_total - before, 3 * load.ticks_total);
    assert_eq!(load.ticks_total, 9 + 1, "one launch for each tick, and one more under way");
    assert_eq!(load.running, 6);
}

#[test]
fn lanes_move_to_batches_that_ran_out_of_them() {
    let mut engine = tiny_on_stages(cpus(2), config());
    // Every second one is long: they begin in one batch.
    for id in 0..8 {
        let tokens = if id % 2 == 0 { 30 } else { 2 };
        engine.submit(RequestId(id), request(&[id as u32], tokens, 4)).unwrap();
    }
    let mut answers = BTreeMap::new();
    while engine.load().running + engine.load().waiting > 4 || answers.is_empty() {
        collect(&mut answers, tick(&mut engine));
    }
    (0..10).for_each(|_| collect(&mut answers, tick(&mut engine)));
    let before = engine.load();
    (0..30).for_each(|_| collect(&mut answers, tick(&mut engine)));
    let after = engine.load();
    let rows = after.core_rows_total - before.core_rows_total;
    assert_eq!(rows, 2 * (after.ticks_total - before.ticks_total), "two rows a launch");
}

#[test]
fn a_request_cancelled_in_the_middle_of_a_launch_is_gone_and_its_id_is_free() {
    for stages in [2, 3] {
        for ticks in 1..20 {
            let mut engine = tiny_on_stages(cpus(stages), config());
            for id in 0..7 {
                engine.submit(RequestId(id), request(&[id as u32, 3], 6, 3)).unwrap();
            }
            (0..ticks).for_each(|_| drop(tick(&mut engine)));
            let running = engine.load().running;
            let again = request(&[9, 9, 9], 2, 5);
            for id in [1, 4] {
                engine.cancel(RequestId(id));
            }
            assert_eq!(engine.load().running, running - 2);
            engine.submit(RequestId(1), again.clone()).unwrap();
            let mut answers = BTreeMap::new();
            while !engine.is_idle() {
                collect(&mut answers, tick(&mut engine));
            }
            assert!(!answers.contains_key(&RequestId(4)), "{:?}", answers[&RequestId(4)]);
            let expected = alone(&mut tiny(config()), again);
            let got = &answers[&RequestId(1)];
            assert!(same(&got.tokens, &expected.tokens) && got.end == expected.end);
            assert_eq!((engine.load().blocks_used, engine.load().rows), (0, 0));
        }
    }
}

#[test]
fn when_blocks_run_out_batches_wait_for_each_other_and_everyone_finishes() {
    for stages in [2, 3, 4] {
        // A request of 30 positions at depth 3 comes to hold 8 blocks; there are seldom enough for two.
        for blocks in [8, 9, 12, 15, 19] {
            let mut engine = tiny_on_stages(cpus(stages), with_blocks(blocks));
            let requests: Vec<Request> =
                (0..6).map(|id| Request { priority: id % 2, ..request(&[id as u32; 4], 27, 3) }).collect();
            for (id, request) in (0..).zip(&requests) {
                engine.submit(RequestId(id), request.clone()).unwrap();
            }
            let (mut answers, mut ticks) = (BTreeMap::new(), 0);
            while !engine.is_idle() {
                collect(&mut answers, tick(&mut engine));
                ticks += 1;
                assert!(ticks < 100_000, "{stages} stages with {blocks} blocks never end");
            }
            for (id, request) in (0..).zip(requests) {
                let (got, expected) = (&answers[&RequestId(id)], alone(&mut tiny(config()), request));
                assert!(same(&got.tokens, &expected.tokens) && got.end == expected.end);
            }
            assert!(blocks < 12 || engine.load().preemptions_total > 0, "{stages} {blocks}");
        }
    }
}

#[test]
fn schedules_that_know_all_rows_have_one_launch_under_way() {
    for schedule in [Schedule::Lockstep, Schedule::Homogeneous] {
        let limits = EngineConfig { schedule, ..config() };
        let (mut staged, mut whole) = (tiny_on_stages(cpus(2), limits.clone()), tiny(limits));
        for id in 0..4 {
            let request = request(&[id as u32], 5, 2 + id as u32);
            staged.submit(RequestId(id), request.clone()).unwrap();
            whole.submit(RequestId(id), request).unwrap();
        }
        while !whole.is_idle() {
            assert_eq!(tick(&mut staged), tick(&mut whole), "the same events in the same ticks");
        }
        assert!(staged.is_idle());
    }
}
