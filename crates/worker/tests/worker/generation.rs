//! What a stream carries.

use futures::future::join_all;
use windlass_engine::{
    Engine, Event, FinishReason, MonotonicClock, Request, RequestId, Sampling, TokenOutput, Usage,
};
use windlass_kernels::Cpu;
use windlass_model::{AdaptiveDepth, Criterion, DepthPolicy, KvPolicy, Local, ModelFolder};
use windlass_proto::v1::{self, GenerationParameters, TokenLogprob};

use crate::server::{PROMPT, Server, collect, config, fixed, network, task};

/// The request on an engine that does nothing else.
fn direct(request: Request) -> (Vec<TokenOutput>, FinishReason, Usage) {
    let clock = Box::new(MonotonicClock::start());
    let mut engine = Engine::new(Local::new(network(Cpu::new(1))), config().engine, clock).unwrap();
    engine.submit(RequestId(0), request).unwrap();
    let (mut tokens, mut events) = (Vec::new(), Vec::new());
    loop {
        engine.tick(&mut events);
        for event in events.drain(..) {
            match event {
                Event::Token(_, token) => tokens.push(token),
                Event::Finished(_, reason, usage) => return (tokens, reason, usage),
            }
        }
    }
}

fn same_token(output: TokenOutput) -> v1::Token {
    let top = output.top_logprobs.iter().map(|&(id, logprob)| TokenLogprob { id, logprob }).collect();
    v1::Token {
        id: output.token,
        depth: output.depth,
        exit_value: output.exit_value,
        exit_values: output.exit_values,
        logprob: output.logprob,
        top_logprobs: top,
        is_stop: output.is_stop,
    }
}

/// Requests as the protocol says them, and as the engine does.
fn pairs() -> Vec<(GenerationParameters, Request)> {
    let bare = GenerationParameters::default;
    let greedy = || Some(v1::Sampling { temperature: Some(0.0), ..v1::Sampling::default() });
    let medium = {
        let folder = ModelFolder::demo();
        folder.efforts(&folder.config().unwrap()).unwrap().default_policy()
    };
    let request = |max_tokens, depth, kv| Request::greedy(PROMPT.to_vec(), max_tokens, depth, kv);
    let kl = DepthPolicy::Adaptive(AdaptiveDepth {
        criterion: Criterion::Kl,
        threshold: 1e-3,
        min: 2,
        max: 24,
        every: 2,
    });
    let kl_wire = v1::AdaptiveDepth {
        criterion: v1::ExitCriterion::Kl.into(),
        threshold: Some(1e-3),
        min: Some(2),
        max: Some(24),
        every: Some(2),
    };
    let kl_wire = v1::DepthPolicy { policy: Some(v1::depth_policy::Policy::Adaptive(kl_wire)) };
    let ring = v1::KvPolicy { policy: Some(v1::kv_policy::Policy::Ring(2)) };
    vec![
        (
            GenerationParameters { sampling: greedy(), ..bare() },
            request(256 - PROMPT.len(), medium, KvPolicy::Full),
        ),
        (
            GenerationParameters {
                max_tokens: Some(12),
                depth: fixed(5),
                kv: Some(ring),
                ignore_eos: true,
                logprobs: Some(3),
                latent_seed: Some(7),
                init_scale: Some(0.5),
                sampling: Some(v1::Sampling { seed: Some(11), top_k: Some(9), ..v1::Sampling::default() }),
                ..bare()
            },
            Request {
                sampling: Sampling { temperature: 1.0, seed: 11, top_k: Some(9), ..Sampling::default() },
                ignore_model_stops: true,
                logprobs: Some(3),
                latent_seed: 7,
                init_scale: 0.5,
                ..request(12, DepthPolicy::Fixed(5), KvPolicy::Ring(2))
            },
        ),
        (
            GenerationParameters {
                max_tokens: Some(20),
                depth: Some(kl_wire),
                ignore_eos: true,
                stop_token_ids: vec![63],
                exit_values: true,
                sampling: greedy(),
                ..bare()
            },
            Request {
                ignore_model_stops: true,
                stop_tokens: [63].into(),
                exit_values: true,
                ..request(20, kl, KvPolicy::Full)
            },
        ),
        (
            GenerationParameters {
                max_tokens: Some(6),
                depth: fixed(7),
                kv: Some(v1::KvPolicy { policy: Some(v1::kv_policy::Policy::Anchor(3)) }),
                priority: Some(-2),
                timeout_ms: Some(60_000),
                sampling: greedy(),
                ..bare()
            },
            request(6, DepthPolicy::Fixed(7), KvPolicy::Anchor(3)),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_side_by_side_carry_what_the_engine_says_of_each_alone() {
    let server = Server::start(&config()).await;
    let streams = pairs().into_iter().map(|(parameters, _)| {
        let mut client = server.client();
        async move { collect(client.generate(task(parameters)).await.unwrap().into_inner()).await }
    });
    let answers = join_all(streams).await;
    for ((parameters, request), (tokens, finish)) in pairs().into_iter().zip(answers) {
        let seed = parameters.sampling.and_then(|sampling| sampling.seed);
        let (expected, reason, usage) = direct(request);
        let expected: Vec<_> = expected.into_iter().map(same_token).collect();
        assert_eq!(tokens, expected);
        let reason = match reason {
            FinishReason::Stop => v1::FinishReason::Stop,
            FinishReason::Length => v1::FinishReason::Length,
            FinishReason::Timeout => v1::FinishReason::Timeout,
        };
        assert_eq!(finish.reason(), reason);
        let told = finish.usage.unwrap();
        assert_eq!(told.prompt_tokens, usage.prompt_tokens);
        assert_eq!(told.completion_tokens, usage.completion_tokens);
        assert_eq!(told.prompt_core_iterations, usage.prompt_core_iterations);
        assert_eq!(told.completion_core_iterations, usage.completion_core_iterations);
        assert_eq!(told.completion_core_iterations_limit, usage.completion_core_iterations_limit);
        assert!(seed.is_none_or(|seed| seed == finish.seed));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_model_does_its_sum() {
    let server = Server::start(&config()).await;
    let sampling = v1::Sampling { temperature: Some(0.0), ..v1::Sampling::default() };
    let parameters = GenerationParameters { sampling: Some(sampling), ..GenerationParameters::default() };
    let stream = server.client().generate(task(parameters)).await.unwrap().into_inner();
    let (tokens, finish) = collect(stream).await;
    let tokens: Vec<_> = tokens.iter().map(|token| (token.id, token.is_stop)).collect();
    assert_eq!(tokens, [(13, false), (2, true)]);
    assert_eq!(finish.reason(), v1::FinishReason::Stop);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drawn_seed_is_told_and_gives_the_same_answer_again() {
    let server = Server::start(&config()).await;
    let hot = |seed| {
        let sampling = v1::Sampling { temperature: Some(50.0), seed, ..v1::Sampling::default() };
        let parameters = GenerationParameters {
            max_tokens: Some(16),
            ignore_eos: true,
            sampling: Some(sampling),
            ..GenerationParameters::default()
        };
        let mut client = server.client();
        async move { collect(client.generate(task(parameters)).await.unwrap().into_inner()).await }
    };
    let (first, second) = (hot(None).await, hot(None).await);
    assert_ne!(first.1.seed, second.1.seed);
    assert_ne!(first.0, second.0);
    assert_eq!(hot(Some(first.1.seed)).await, first);
}
