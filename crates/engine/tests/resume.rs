//! A request that another engine began goes on as it would have there.
//!
//! Random requests are cut behind a random number of tokens and handed, with these and their depths, to another engine of other
//! limits and among other requests. What is left of each answer must equal, bit for bit, what it was in one piece.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]

mod common;

use std::collections::BTreeMap;

use common::choices::Choices;
use common::visits::{Visit, together, visits};
use common::{Answer, config, goldens_folder, same, tick, tiny, tiny_on, undisturbed};
use windlass_engine::{
    EmittedToken, EngineConfig, Event, FinishReason, Request, RequestId, SubmitError, TokenOutput,
    block_bytes,
};
use windlass_kernels::{Backend, Cpu, CpuConfig, WeightFormat};
use windlass_model::{DepthPolicy, KvPolicy, ModelFolder};

/// The request as it goes on behind these tokens.
fn behind(request: &Request, tokens: &[TokenOutput]) -> Request {
    let emitted = tokens.iter().map(|output| EmittedToken { token: output.token, depth: output.depth });
    Request { emitted: emitted.collect(), ..request.clone() }
}

/// Cuts the requests of one schedule and compares what is left of each; returns how many tokens came before and after cuts.
fn check(schedule: u64, cpu: &dyn Fn() -> Cpu) -> (usize, usize) {
    let model = ModelFolder::open(goldens_folder()).unwrap().config().unwrap();
    let block = block_bytes(&model, cpu().arithmetic().kv());
    let mut choices = Choices { schedule, drawn: 0 };
    let limits = choices.engine(block);
    let mut first = tiny_on(cpu(), EngineConfig { prefill_segment: limits.prefill_segment, ..config() });
    let visits: Vec<Visit> = visits(&mut choices);
    let expected: Vec<Answer> = visits.iter().map(|visit| undisturbed(&mut first, &visit.request)).collect();
    let cuts: Vec<usize> = expected.iter().map(|answer| choices.below(answer.tokens.len() + 1)).collect();
    let resumed: Vec<Visit> = visits
        .iter()
        .zip(&expected)
        .zip(&cuts)
        .map(|((visit, answer), cut)| Visit {
            request: behind(&visit.request, &answer.tokens[..*cut]),
            arrives: visit.arrives,
            cancelled: None,
        })
        .collect();
    let answers: BTreeMap<_, _> = together(&mut tiny_on(cpu(), limits.clone()), &resumed);
    let mut counts = (0, 0);
    for (i, (expected, cut)) in expected.iter().zip(cuts).enumerate() {
        let (got, rest) = (&answers[&RequestId(i as u64)], &expected.tokens[cut..]);
        let equal = same(&got.tokens, rest) && got.end == expected.end;
        assert!(
            equal,
            "schedule {schedule}: {:?} differs behind token {cut} under {limits:?}",
            visits[i].request
        );
        counts = (counts.0 + cut, counts.1 + rest.len());
    }
    counts
}

#[test]
fn a_resumed_answer_is_the_rest_of_the_whole_one() {
    let counts: Vec<_> = (0..120).map(|schedule| check(schedule, &|| Cpu::new(1))).collect();
    assert!(counts.iter().any(|(before, _)| *before > 0) && counts.iter().any(|(_, after)| *after > 0));
}

#[test]
fn a_resumed_answer_is_the_rest_of_the_whole_one_in_any_format_of_weights() {
    for weights in [WeightFormat::Bf16, WeightFormat::Int8] {
        (0..20).for_each(|schedule| {
            check(schedule, &|| Cpu::with(CpuConfig { weights, ..CpuConfig::new(2) }));
        });
    }
}

fn request() -> Request {
    Request {
        ignore_model_stops: true,
        ..Request::greedy(vec![1, 2, 3], 4, DepthPolicy::Fixed(3), KvPolicy::Full)
    }
}

fn emitted(tokens: &[(u32, u32)]) -> Vec<EmittedToken> {
    tokens.iter().map(|&(token, depth)| EmittedToken { token, depth }).collect()
}

#[test]
fn an_answer_that_came_whole_ends_at_once_and_takes_no_lane() {
    let all = emitted(&[(9, 3), (8, 1), (7, 2), (6, 3)]);
    let cases = [
        (Request { emitted: all.clone(), ..request() }, FinishReason::Length, 4),
        (Request { emitted: all[..2].to_vec(), stop_tokens: [8].into(), ..request() }, FinishReason::Stop, 2),
        (Request { emitted: all, stop_tokens: [6].into(), ..request() }, FinishReason::Stop, 4),
    ];
    let mut engine = tiny(config());
    for (request, reason, count) in cases {
        engine.submit(RequestId(0), request).unwrap();
        assert!(!engine.is_idle());
        let events = tick(&mut engine);
        let [Event::Finished(RequestId(0), ended, usage)] = events[..] else { panic!("{events:?}") };
        assert_eq!((ended, usage.completion_tokens), (reason, count));
        assert_eq!(usage.completion_core_iterations, [0, 3, 4, 6, 9][count as usize]);
        assert!(engine.is_idle() && engine.load().core_rows_total == 0);
    }
}

#[test]
fn emitted_tokens_that_no_engine_can_have_made_are_refused() {
    let cases = [
        (vec![(256, 3)], "token 256 is not in the vocabulary"),
        (vec![(1, 2)], "the first token takes the prompt's depth 3, not 2"),
        (vec![(1, 3), (1, 4)], "depth 4 is out of range: use 1 to 3"),
        (vec![(1, 3), (1, 0)], "depth 0 is out of range: use 1 to 3"),
        (vec![(1, 3); 5], "5 tokens are more than max_tokens: use at most 4"),
    ];
    let mut engine = tiny(config());
    for (tokens, part) in cases {
        let request = Request { emitted: emitted(&tokens), ..request() };
        let Err(SubmitError::Invalid(error)) = engine.submit(RequestId(0), request) else {
            panic!("accepted in spite of '{part}'")
        };
        assert!(error.field == "emitted" && error.reason.contains(part), "{error}");
    }
    assert!(engine.is_idle());
}
