//! Answers that another worker began.

use tonic::Code;
use windlass_proto::v1::{
    self, EmittedToken, FinishReason, GenerateTaskRequest, GenerationParameters, Sampling, Token, kv_policy,
};

use crate::server::{Server, collect, config, fixed, task};

/// A request that draws its tokens, with penalties.
fn hot(kv: kv_policy::Policy, max_tokens: Option<u32>) -> GenerateTaskRequest {
    let sampling = Sampling {
        temperature: Some(2.0),
        seed: Some(7),
        repetition_penalty: Some(1.2),
        frequency_penalty: Some(0.5),
        ..Sampling::default()
    };
    task(GenerationParameters {
        max_tokens,
        kv: Some(v1::KvPolicy { policy: Some(kv) }),
        ignore_eos: true,
        exit_values: true,
        logprobs: Some(2),
        sampling: Some(sampling),
        ..GenerationParameters::default()
    })
}

fn behind(task: &GenerateTaskRequest, tokens: &[Token]) -> GenerateTaskRequest {
    let emitted = tokens.iter().map(|token| EmittedToken { id: token.id, depth: token.depth });
    GenerateTaskRequest { emitted: emitted.collect(), ..task.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_on_at_another_worker_as_it_would_have_at_the_first() {
    let first = Server::start(&config()).await;
    let mut other = config();
    (other.engine.max_rows, other.engine.prefill_chunk, other.engine.prefix_cache) = (7, 3, false);
    let second = Server::start(&other).await;
    let policies =
        [kv_policy::Policy::Full(v1::FullKv {}), kv_policy::Policy::Ring(2), kv_policy::Policy::Anchor(3)];
    for (policy, max_tokens) in policies.into_iter().zip([Some(20), Some(20), None]) {
        let task = hot(policy, max_tokens);
        let (tokens, finish) =
            collect(first.client().generate(task.clone()).await.unwrap().into_inner()).await;
        for cut in [0, 1, 7, tokens.len() - 1, tokens.len()] {
            let resumed = second.client().generate(behind(&task, &tokens[..cut])).await.unwrap();
            assert_eq!(collect(resumed.into_inner()).await, (tokens[cut..].to_vec(), finish));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_max_tokens_an_answer_that_fills_the_memory_here_ends_with_what_it_has() {
    let server = Server::start(&config()).await;
    let mut small = config();
    small.engine.kv_bytes = 3 << 20;
    let small = Server::start(&small).await;
    let mut task = hot(kv_policy::Policy::Full(v1::FullKv {}), None);
    task.parameters.as_mut().unwrap().depth = fixed(16);
    let (tokens, _) = collect(server.client().generate(task.clone()).await.unwrap().into_inner()).await;
    let (rest, finish) =
        collect(small.client().generate(behind(&task, &tokens[..200])).await.unwrap().into_inner()).await;
    assert_eq!((rest.len(), finish.reason()), (0, FinishReason::Length));
    assert_eq!(finish.usage.unwrap().completion_tokens, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn emitted_tokens_are_checked() {
    type Spoil = fn(&mut GenerateTaskRequest);
    let cases: [(Spoil, &str); 4] = [
        (
            |task| task.parameters.as_mut().unwrap().sampling.as_mut().unwrap().seed = None,
            "emitted: tokens were emitted with a seed that is not set: set sampling.seed",
        ),
        (|task| task.emitted[0].id = 64, "emitted: token 64 is not in the vocabulary: use ids below 64"),
        (|task| task.emitted[0].depth = 8, "emitted: the first token takes the prompt's depth 16, not 8"),
        (
            |task| task.parameters.as_mut().unwrap().max_tokens = Some(1),
            "emitted: 2 tokens are more than max_tokens: use at most 1",
        ),
    ];
    let server = Server::start(&config()).await;
    for (spoil, message) in cases {
        let mut task = hot(kv_policy::Policy::Ring(2), Some(20));
        task.emitted = vec![EmittedToken { id: 5, depth: 16 }, EmittedToken { id: 6, depth: 3 }];
        spoil(&mut task);
        let status = server.client().generate(task).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, message));
    }
}
