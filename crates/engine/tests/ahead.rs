//! Launches that are started before those of the last tick are collected.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]

mod common;

use common::choices::Choices;
use common::told::Told;
use common::visits::{together, visits};
use common::{alone, config, goldens_folder, network, request, tick, tiny, tiny_ahead};
use windlass_engine::{Draft, Engine, EngineConfig, Event, MonotonicClock, Request, RequestId, block_bytes};
use windlass_kernels::{Cpu, KvFormat};
use windlass_model::{AdaptiveDepth, Criterion, DepthPolicy, KvPolicy, Local, ModelFolder};

const MOST: u32 = 12;

fn adaptive(threshold: f64) -> Request {
    let policy = AdaptiveDepth { criterion: Criterion::LatentDiff, threshold, min: 1, max: MOST, every: 1 };
    Request { depth: DepthPolicy::Adaptive(policy), kv: KvPolicy::Ring(1), ..request(&[1, 2, 3], 8, 1) }
}

#[test]
fn a_row_that_stops_by_its_latent_takes_part_in_one_more_launch_and_no_other_does() {
    let rows = |ahead: bool, request: Request| {
        let mut engine = if ahead { tiny_ahead(config()) } else { tiny(config()) };
        let answer = alone(&mut engine, request);
        let stopped = answer.tokens.iter().filter(|token| token.depth < MOST).count() as u64;
        (engine.load().core_rows_total, stopped)
    };
    let (in_step, stopped) = rows(false, adaptive(0.3));
    assert!(stopped > 0, "no row stops early");
    assert_eq!(rows(true, adaptive(0.3)), (in_step + stopped, stopped));
    for depth in [DepthPolicy::Fixed(5), adaptive(1e-9).depth] {
        let request = Request { depth, ..adaptive(1e-9) };
        assert_eq!(rows(true, request.clone()).0, rows(false, request).0);
    }
}

#[test]
fn a_tick_starts_its_launch_before_the_last_one_is_collected() {
    let mut engine = tiny_ahead(config());
    engine.submit(RequestId(0), request(&[1], 2, 3)).unwrap();
    let mut collected = Vec::new();
    let mut started = Vec::new();
    for _ in 0..4 {
        tick(&mut engine);
        started.push(engine.load().core_rows_total);
        collected.push(engine.launches().len());
    }
    // The first tick has nothing to collect; the fourth has the last core to collect, and nothing to start before the token is known.
    assert_eq!(started, [1, 2, 3, 3]);
    assert_eq!(collected[0], 0);
    assert!(collected[1..].iter().all(|launches| *launches > 0), "{collected:?}");
}

#[test]
fn a_cancelled_request_is_gone_at_once_and_its_memory_is_free() {
    let mut engine = tiny_ahead(config());
    for id in 0..3 {
        engine.submit(RequestId(id), Request { depth: DepthPolicy::Fixed(6), ..adaptive(1e-9) }).unwrap();
    }
    (0..9).for_each(|_| drop(tick(&mut engine)));
    let before = engine.load();
    engine.cancel(RequestId(0));
    let after = engine.load();
    assert_eq!((before.running, after.running), (3, 2));
    assert!(after.blocks_used < before.blocks_used && after.rows < before.rows);
    engine.submit(RequestId(0), request(&[9; 20], 1, 2)).unwrap();
    let mut tokens = [0; 3];
    while !engine.is_idle() {
        for event in tick(&mut engine) {
            if let Event::Token(id, _) = event {
                tokens[id.0 as usize] += 1;
            }
        }
    }
    assert_eq!(tokens[0], 1, "the id is that of the new request alone");
    assert_eq!(engine.load().blocks_used, 0);
}

#[test]
fn who_keeps_tables_of_its_own_is_told_of_all_that_changes() {
    let folder = ModelFolder::open(goldens_folder()).unwrap();
    let model = folder.config().unwrap();
    let (mut stopped, mut kept) = (0, 0);
    for schedule in 0..60 {
        let mut choices = Choices { schedule, drawn: 0 };
        let limits = choices.engine(block_bytes(&model, KvFormat::F32));
        let limits = EngineConfig { draft: Draft::Every(1), ..limits };
        let mut visits = visits(&mut choices);
        // Rows with drafts behind them that stop by their latents, in half of the schedules.
        if schedule % 2 == 0 {
            visits.iter_mut().for_each(|visit| {
                visit.request = Request { kv: KvPolicy::Full, max_tokens: 10, ..adaptive(0.1) };
            });
        }
        for ahead in [false, true] {
            let network = network(Cpu::new(1), &folder);
            let runner = Told::new(if ahead { Local::ahead(network) } else { Local::new(network) });
            let mut engine = Engine::new(runner, limits.clone(), Box::new(MonotonicClock::start())).unwrap();
            let answers = together(&mut engine, &visits);
            let tokens = answers.values().flat_map(|answer| &answer.tokens);
            stopped += tokens.filter(|token| token.exit_value.is_some() && token.depth < MOST).count();
            kept += engine.load().drafts_kept_total;
        }
    }
    assert!(stopped > 100 && kept > 100, "{stopped} rows stopped, {kept} drafts were kept");
}
