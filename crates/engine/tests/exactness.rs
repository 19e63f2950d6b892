//! What a request gets is a function of the request alone.
//!
//! Random schedules: requests of mixed prompts, depth policies, K/V policies, priorities and seeds arrive at random ticks
//! at an engine with random limits and schedule, some are cancelled. Prompts begin alike, so that the prefix cache is hit,
//! and K/V blocks are short, so that lanes are taken away and replayed. Every answer must equal, bit for bit, that of the
//! same request alone, without a cache and without drafts.
//! `WINDLASS_SCHEDULES` sets how many schedules run (200 by default), `WINDLASS_FIRST_SCHEDULE` where they begin.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]

mod common;

use std::collections::BTreeMap;
use std::ops::Range;

use common::choices::Choices;
use common::visits::{Visit, together, visits};
use common::{
    Answer, alone, config, cpu_groups, cpus, engine, goldens_folder, network, same, tiny, tiny_ahead,
    tiny_on, tiny_on_stages, tiny_on_stages_of_ranks, tiny_ranks, undisturbed,
};
#[cfg(feature = "cuda-emulator")]
use common::{emulated_group, request, tiny_group, tiny_split};
#[cfg(feature = "cuda-emulator")]
use windlass_engine::{Draft, Sampling, TokenOutput};
use windlass_engine::{Engine, EngineConfig, Load, Request, RequestId, block_bytes};
use windlass_kernels::{Cpu, CpuConfig, WeightFormat};
#[cfg(feature = "cuda-emulator")]
use windlass_model::{AdaptiveDepth, Criterion, DepthPolicy, KvPolicy};
use windlass_model::{ModelFolder, Runner};

fn environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// A way to run a schedule: an engine with this config, and what it says of itself at the end.
type Way<'a> = &'a dyn Fn(&EngineConfig, &[Visit]) -> (BTreeMap<RequestId, Answer>, Load);

/// On engines that `engine` makes.
fn on<R: Runner>(
    engine: impl Fn(EngineConfig) -> Engine<R>,
) -> impl Fn(&EngineConfig, &[Visit]) -> (BTreeMap<RequestId, Answer>, Load) {
    move |config, visits| {
        let mut engine = engine(config.clone());
        let answers = together(&mut engine, visits);
        (answers, engine.load())
    }
}

/// Runs schedules in all these ways, and compares every answer with that of the same request alone, on an engine that `single`
/// makes. All have weights of one format.
fn check<S: Runner>(
    schedules: Range<u64>,
    weights: WeightFormat,
    single: impl Fn(EngineConfig) -> Engine<S>,
    ways: &[Way<'_>],
) {
    let model = ModelFolder::open(goldens_folder()).unwrap().config().unwrap();
    let block = block_bytes(&model, weights.kv());
    let mut single = [None, Some(16), Some(32)]
        .map(|prefill_segment| (prefill_segment, single(EngineConfig { prefill_segment, ..config() })));
    let mut tried = vec![Tried::default(); ways.len()];
    for schedule in schedules {
        let mut choices = Choices { schedule, drawn: 0 };
        let config = choices.engine(block);
        let visits = visits(&mut choices);
        let single = single.iter_mut().find(|(segment, _)| *segment == config.prefill_segment).unwrap();
        let expected: Vec<_> =
            visits.iter().map(|visit| undisturbed(&mut single.1, &visit.request)).collect();
        for ((way, run), tried) in ways.iter().enumerate().zip(&mut tried) {
            let (answers, load) = run(&config, &visits);
            tried.preempted += load.preemptions_total;
            tried.reused += load.prefix_hit_positions_total;
            tried.kept += load.drafts_kept_total;
            tried.given_up += load.drafts_total - load.drafts_kept_total;
            for ((id, visit), expected) in (0..).map(RequestId).zip(&visits).zip(&expected) {
                let got = answers.get(&id).cloned().unwrap_or_default();
                let place = || format!("schedule {schedule}, way {way}: {id:?}");
                let length = if got.end.is_some() { expected.tokens.len() } else { got.tokens.len() };
                assert!(got.end.is_some() || visit.cancelled.is_some(), "{} has no end", place());
                let equal = same(&got.tokens, &expected.tokens[..length]);
                assert!(equal, "{} differs: {:?} under {config:?}", place(), visit.request);
                assert!(got.end.is_none() || got.end == expected.end, "{} ended differently", place());
                tried.compared += length as u64;
            }
        }
    }
    for tried in tried {
        println!("{tried:?}");
        let Tried { compared, preempted, reused, kept, given_up } = tried;
        let least = [compared, preempted, reused, kept, given_up].into_iter().min();
        assert!(least > Some(0), "{tried:?}: a part was not tried");
    }
}

/// What came up in schedules: tokens that were compared, lanes taken away, prompt positions found in the cache, drafts whose
/// guess came true, and others.
#[derive(Debug, Clone, Copy, Default)]
struct Tried {
    compared: u64,
    preempted: u64,
    reused: u64,
    kept: u64,
    given_up: u64,
}

#[test]
fn answers_depend_neither_on_the_schedule_nor_on_the_number_of_stages_nor_on_running_ahead() {
    let first = environment("WINDLASS_FIRST_SCHEDULE", 0);
    let schedules = first..first + environment("WINDLASS_SCHEDULES", 200);
    let on_stages = |stages| on(move |config| tiny_on_stages(cpus(stages), config));
    check(schedules, WeightFormat::F32, tiny, &[&on(tiny), &on_stages(2), &on_stages(3), &on(tiny_ahead)]);
}

#[test]
fn answers_do_not_depend_on_the_schedule_in_any_format_of_weights() {
    for weights in [WeightFormat::Bf16, WeightFormat::Int8] {
        let cpu = |threads| Cpu::with(CpuConfig { weights, ..CpuConfig::new(threads) });
        let whole = |config| tiny_on(cpu(2), config);
        check(
            0..40,
            weights,
            whole,
            &[&on(whole), &on(|config| tiny_on_stages(vec![cpu(1), cpu(2)], config))],
        );
    }
}

#[test]
fn answers_do_not_depend_on_the_schedule_on_several_ranks_or_the_number_of_their_stages() {
    for (ranks, weights, stages) in
        [(2, WeightFormat::F32, 2), (2, WeightFormat::Int8, 3), (3, WeightFormat::F32, 2)]
    {
        let cpu = |threads| CpuConfig { weights, ..CpuConfig::new(threads) };
        let split = |config| tiny_ranks(ranks, cpu(2), config);
        let on_stages = |config| tiny_on_stages_of_ranks(cpu_groups(stages, ranks, cpu(1)), config);
        check(0..30, weights, split, &[&on(split), &on(on_stages)]);
    }
}

/// Requests for kernels of GPUs, compiled for this machine: few, since they are slow.
#[cfg(feature = "cuda-emulator")]
fn few_visits() -> Vec<Visit> {
    let criterion = Criterion::LatentDiff;
    let adaptive =
        DepthPolicy::Adaptive(AdaptiveDepth { criterion, threshold: 0.6, min: 1, max: 5, every: 1 });
    let requests = [
        (&[5][..], DepthPolicy::Fixed(2), KvPolicy::Full),
        (&[7, 8, 9], DepthPolicy::Fixed(3), KvPolicy::Full),
        (&[1, 2], adaptive, KvPolicy::Full),
        (&[3, 4], adaptive, KvPolicy::Ring(1)),
    ];
    let visit = |(arrives, (prompt, depth, kv)): (usize, (&[u32], DepthPolicy, KvPolicy))| Visit {
        request: Request { depth, kv, ..request(prompt, 3, 1) },
        arrives,
        cancelled: None,
    };
    let mut visits: Vec<_> = requests.into_iter().enumerate().map(visit).collect();
    // One looks at the most likely token alone, one at a drawn token alone.
    visits[0].request.report_logits = false;
    let sampling = Sampling { temperature: 1.5, top_p: 0.95, frequency_penalty: 0.5, ..Sampling::default() };
    visits[1].request = Request { sampling, report_logits: false, ..visits[1].request.clone() };
    visits
}

/// Limits under which positions run on guesses, as close behind each other as can be.
#[cfg(feature = "cuda-emulator")]
fn drafting() -> EngineConfig {
    EngineConfig { draft: Draft::Every(1), ..config() }
}

/// What each of these requests gets alone.
#[cfg(feature = "cuda-emulator")]
fn each_alone<R: Runner>(engine: &mut Engine<R>, visits: &[Visit]) -> BTreeMap<RequestId, Answer> {
    let alone = visits.iter().map(|visit| undisturbed(engine, &visit.request));
    let alone: BTreeMap<_, _> = (0..).map(RequestId).zip(alone).collect();
    assert!(alone.values().all(|answer| answer.tokens.len() == 3));
    let is_early = |token: &TokenOutput| token.depth < 5;
    assert!(
        [2, 3].iter().all(|id| alone[&RequestId(*id)].tokens.iter().any(is_early)),
        "no row stops by its latent"
    );
    alone
}

#[cfg(feature = "cuda-emulator")]
#[test]
fn answers_of_a_cuda_device_depend_neither_on_the_batch_nor_on_running_ahead() {
    let visits = few_visits();
    for weights in [WeightFormat::F32, WeightFormat::Bf16] {
        let device = || emulated_group(1, weights).remove(0);
        let alone = each_alone(&mut tiny_group(vec![device()], config()), &visits);
        let mut engine = tiny_on(device(), drafting());
        assert_eq!(together(&mut engine, &visits), alone, "{weights}");
        assert!(engine.load().drafts_kept_total > 0);
    }
}

#[cfg(feature = "cuda-emulator")]
#[test]
fn answers_of_several_cuda_devices_depend_neither_on_the_batch_nor_on_the_number_of_stages() {
    let visits = few_visits();
    for (ranks, weights) in [(2, WeightFormat::F32), (3, WeightFormat::Bf16)] {
        let group = || emulated_group(ranks, weights);
        let mut one_stage = tiny_group(group(), config());
        let alone = each_alone(&mut one_stage, &visits);
        // Who wants to see logits has the engine draw from them.
        let by_the_engine = Request { report_logits: true, ..visits[1].request.clone() };
        let by_the_engine = undisturbed(&mut one_stage, &by_the_engine).tokens.into_iter();
        let tokens = |answer: &Answer| answer.tokens.iter().map(|token| token.token).collect::<Vec<_>>();
        assert_eq!(tokens(&alone[&RequestId(1)]), by_the_engine.map(|token| token.token).collect::<Vec<_>>());
        let mut one_stage = one_stage.reconfigure(drafting()).unwrap();
        let mut two_stages = tiny_split(vec![group(), group()], drafting());
        for got in [together(&mut one_stage, &visits), together(&mut two_stages, &visits)] {
            assert_eq!(got, alone, "{ranks} ranks, {weights}");
        }
        assert!([one_stage.load(), two_stages.load()].iter().all(|load| load.drafts_kept_total > 0));
    }
}

#[test]
fn replayed_depths_give_the_tokens_of_the_run_they_were_recorded_from() {
    let mut engine = tiny(config());
    for schedule in 0..40 {
        let mut choices = Choices { schedule, drawn: 7 };
        let request = Request { recorded_depths: None, ..choices.request() };
        let first = alone(&mut engine, request.clone());
        let mut depths: Vec<_> = first.tokens.iter().map(|token| token.depth).collect();
        depths.resize(request.max_tokens, 1);
        let second = alone(&mut engine, Request { recorded_depths: Some(depths), ..request });
        for (a, b) in first.tokens.iter().zip(&second.tokens) {
            assert_eq!((a.token, a.depth, &a.logits), (b.token, b.depth, &b.logits), "schedule {schedule}");
        }
        assert_eq!(first.end, second.end);
    }
}

#[test]
fn answers_do_not_depend_on_the_number_of_threads() {
    let folder = ModelFolder::open(goldens_folder()).unwrap();
    let [mut one, mut three] = [1, 3].map(|threads| engine(network(Cpu::new(threads), &folder), config()));
    for schedule in 0..20 {
        let request = Choices { schedule, drawn: 0 }.request();
        let [a, b] = [&mut one, &mut three].map(|engine| alone(engine, request.clone()));
        assert!(same(&a.tokens, &b.tokens) && a.end == b.end, "{request:?}");
    }
}

#[test]
fn answers_of_ranks_do_not_depend_on_their_threads() {
    let [mut two, mut seven] = [2, 7].map(|threads| tiny_ranks(2, CpuConfig::new(threads), config()));
    for schedule in 0..20 {
        let request = Choices { schedule, drawn: 0 }.request();
        let [a, b] = [&mut two, &mut seven].map(|engine| alone(engine, request.clone()));
        assert!(same(&a.tokens, &b.tokens) && a.end == b.end, "{request:?}");
    }
}
