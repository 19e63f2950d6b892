//! What a request may not say.

use tonic::Code;
use tonic_types::StatusExt;
use windlass_proto::v1::{
    AdaptiveDepth, DepthPolicy, ExitCriterion, GenerateTaskRequest, GenerationParameters, KvPolicy, Sampling,
    depth_policy, kv_policy,
};

use crate::server::{PROMPT, Server, config, fixed};

fn with(prompt: Vec<u32>, change: impl FnOnce(&mut GenerationParameters)) -> GenerateTaskRequest {
    let mut parameters = GenerationParameters::default();
    change(&mut parameters);
    GenerateTaskRequest { prompt, parameters: Some(parameters), ..GenerateTaskRequest::default() }
}

fn bad(change: impl FnOnce(&mut GenerationParameters)) -> GenerateTaskRequest {
    with(PROMPT.to_vec(), change)
}

fn adaptive(change: impl FnOnce(&mut AdaptiveDepth)) -> GenerateTaskRequest {
    let mut adaptive = AdaptiveDepth::default();
    adaptive.set_criterion(ExitCriterion::LatentDiff);
    change(&mut adaptive);
    let policy = Some(depth_policy::Policy::Adaptive(adaptive));
    bad(|parameters| parameters.depth = Some(DepthPolicy { policy }))
}

fn kv(policy: Option<kv_policy::Policy>) -> GenerateTaskRequest {
    bad(|parameters| parameters.kv = Some(KvPolicy { policy }))
}

fn sampling(change: impl FnOnce(&mut Sampling)) -> GenerateTaskRequest {
    let mut sampling = Sampling::default();
    change(&mut sampling);
    bad(|parameters| parameters.sampling = Some(sampling))
}

/// Request, field at fault, part of the message.
fn table() -> Vec<(GenerateTaskRequest, &'static str, &'static str)> {
    let none = |_: &mut GenerationParameters| {};
    vec![
        (GenerateTaskRequest::default(), "prompt", "it has no tokens"),
        (with(vec![1; 256], none), "prompt", "it has 256 tokens: use at most 255"),
        (with(vec![1, 64], none), "prompt", "token 64 is not in the vocabulary: use ids below 64"),
        (bad(|p| p.max_tokens = Some(0)), "max_tokens", "0 is out of range"),
        (bad(|p| p.max_tokens = Some(248)), "max_tokens", "use at most 247"),
        (bad(|p| p.max_tokens = Some(u32::MAX)), "max_tokens", "use at most 247"),
        (bad(|p| p.depth = fixed(0)), "depth", "0 is out of range: use 1 to 64"),
        (bad(|p| p.depth = fixed(65)), "depth", "65 is out of range: use 1 to 64"),
        (bad(|p| p.depth = Some(DepthPolicy { policy: None })), "depth", "use fixed or adaptive"),
        (
            bad(|p| (p.depth, p.effort) = (fixed(4), Some("low".to_owned()))),
            "depth",
            "reasoning_effort 'low' is set too",
        ),
        (bad(|p| p.effort = Some("huge".to_owned())), "reasoning_effort", "use one of low, medium, high"),
        (
            adaptive(|a| a.criterion = 0),
            "depth.adaptive.criterion",
            "it is not set: use one of latent-diff, ",
        ),
        (adaptive(|a| a.criterion = 99), "depth.adaptive.criterion", "99 is unknown"),
        (adaptive(|a| a.min = Some(17)), "depth.adaptive.min", "17 is out of range"),
        (adaptive(|a| a.max = Some(65)), "depth", "65 is out of range"),
        (adaptive(|a| a.every = Some(0)), "depth.adaptive.every", "use at least 1"),
        (adaptive(|a| a.threshold = Some(-1.0)), "depth.adaptive.threshold", "-1 is out of range"),
        (adaptive(|a| a.threshold = Some(f64::NAN)), "depth.adaptive.threshold", "NaN"),
        (kv(None), "kv", "use full, ring or anchor"),
        (kv(Some(kv_policy::Policy::Ring(0))), "kv", "ring 0 is out of range"),
        (bad(|p| p.logprobs = Some(21)), "logprobs", "use 0 to 20"),
        (bad(|p| p.stop_token_ids = vec![2, 70]), "stop_token_ids", "token 70"),
        (bad(|p| p.init_scale = Some(f32::INFINITY)), "init_scale", "inf is out of range"),
        (sampling(|s| s.temperature = Some(-0.5)), "temperature", "-0.5 is out of range"),
        (sampling(|s| s.top_p = Some(0.0)), "top_p", "above 0 and at most 1"),
        (sampling(|s| s.top_k = Some(0)), "top_k", "use at least 1"),
        (sampling(|s| s.min_p = Some(1.5)), "min_p", "from 0 to 1"),
        (sampling(|s| s.repetition_penalty = Some(0.0)), "repetition_penalty", "above 0"),
        (sampling(|s| s.presence_penalty = Some(f32::NAN)), "presence_penalty", "NaN"),
        (sampling(|s| s.logit_bias = [(64, 1.0)].into()), "logit_bias", "token 64"),
        (sampling(|s| s.logit_bias = [(3, f32::NAN)].into()), "logit_bias.3", "NaN"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_by_field() {
    let server = Server::start(&config()).await;
    for (request, field, part) in table() {
        let Err(status) = server.client().generate(request).await else {
            panic!("accepted in spite of {field}: {part}");
        };
        let message = status.message();
        assert_eq!(status.code(), Code::InvalidArgument, "{message}");
        assert!(message.starts_with(&format!("{field}: ")) && message.contains(part), "{message}");
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations.len(), 1);
        let told = format!("{}: {}", violations[0].field, violations[0].description);
        assert_eq!(told, message);
    }
    assert_eq!(server.load().await.ticks_total, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_fit_the_kv_memory_is_refused_with_a_way_out() {
    let mut config = config();
    config.engine.kv_bytes = 1 << 20;
    let server = Server::start(&config).await;
    let status = server.client().generate(bad(|p| p.depth = fixed(64))).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "another worker may have more");
    assert!(status.message().contains("kv ring"), "{}", status.message());
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "max_tokens");
    let ring = KvPolicy { policy: Some(kv_policy::Policy::Ring(1)) };
    server.client().generate(bad(|p| (p.kv, p.depth) = (Some(ring), fixed(64)))).await.unwrap();
}
