//! From the engine's words to those of the protocol.

use windlass_engine::{CORE_ROWS_BOUNDS, FinishReason, Load, TokenOutput, Usage};
use windlass_model::{Criterion, DepthPolicy};
use windlass_proto::v1;

/// One token.
pub(crate) fn token(output: TokenOutput) -> v1::Token {
    let logprob = |(id, logprob)| v1::TokenLogprob { id, logprob };
    v1::Token {
        id: output.token,
        depth: output.depth,
        exit_value: output.exit_value,
        exit_values: output.exit_values,
        logprob: output.logprob,
        top_logprobs: output.top_logprobs.into_iter().map(logprob).collect(),
        is_stop: output.is_stop,
    }
}

/// The end of a generation that was sampled with `seed`.
pub(crate) fn finish(reason: FinishReason, usage: Usage, seed: u64) -> v1::Finish {
    let reason = match reason {
        FinishReason::Stop => v1::FinishReason::Stop,
        FinishReason::Length => v1::FinishReason::Length,
        FinishReason::Timeout => v1::FinishReason::Timeout,
    };
    let usage = v1::Usage {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        prompt_core_iterations: usage.prompt_core_iterations,
        completion_core_iterations: usage.completion_core_iterations,
        completion_core_iterations_limit: usage.completion_core_iterations_limit,
    };
    v1::Finish { reason: reason.into(), usage: Some(usage), seed }
}

/// How busy the engine is.
pub(crate) fn load(load: &Load) -> v1::LoadResponse {
    v1::LoadResponse {
        running: load.running as u32,
        waiting: load.waiting as u32,
        rows: load.rows as u32,
        blocks_used: load.blocks_used as u32,
        blocks_total: load.blocks_total as u32,
        queued_core_iterations: load.queued_core_iterations,
        ticks_total: load.ticks_total,
        prelude_rows_total: load.prelude_rows_total,
        core_rows_total: load.core_rows_total,
        coda_rows_total: load.coda_rows_total,
        core_rows_histogram: load.core_rows_histogram.to_vec(),
        core_rows_bounds: CORE_ROWS_BOUNDS.to_vec(),
        blocks_cached: load.blocks_cached as u32,
        preemptions_total: load.preemptions_total,
        prefix_query_positions_total: load.prefix_query_positions_total,
        prefix_hit_positions_total: load.prefix_hit_positions_total,
        drafts_total: load.drafts_total,
        drafts_kept_total: load.drafts_kept_total,
    }
}

/// A depth policy with every number spelt out.
pub(crate) fn depth_policy(policy: &DepthPolicy) -> v1::DepthPolicy {
    let policy = match policy {
        DepthPolicy::Fixed(depth) => v1::depth_policy::Policy::Fixed(*depth),
        DepthPolicy::Adaptive(adaptive) => v1::depth_policy::Policy::Adaptive(v1::AdaptiveDepth {
            criterion: exit_criterion(adaptive.criterion).into(),
            threshold: Some(adaptive.threshold),
            min: Some(adaptive.min),
            max: Some(adaptive.max),
            every: Some(adaptive.every),
        }),
    };
    v1::DepthPolicy { policy: Some(policy) }
}

fn exit_criterion(criterion: Criterion) -> v1::ExitCriterion {
    match criterion {
        Criterion::LatentDiff => v1::ExitCriterion::LatentDiff,
        Criterion::Cosine => v1::ExitCriterion::Cosine,
        Criterion::Kl => v1::ExitCriterion::Kl,
        Criterion::MinpKl => v1::ExitCriterion::MinpKl,
        Criterion::EntropyDiff => v1::ExitCriterion::EntropyDiff,
        Criterion::ArgmaxStability => v1::ExitCriterion::ArgmaxStability,
    }
}
