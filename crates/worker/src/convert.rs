//! From a request as it comes in to one for the engine: fills in what is absent and refuses what says nothing.
//!
//! Ranges are the engine's to check. Fields are named as in the HTTP API, which is what people write.

use std::collections::BTreeMap;
use std::time::Duration;

use windlass_engine::{EmittedToken, InvalidRequest, Request, Sampling};
use windlass_model::{AdaptiveDepth, Criterion, DepthPolicy, KvPolicy};
use windlass_proto::v1;

use crate::seeds::Seeds;
use crate::served_model::ServedModel;

/// The engine's request for `task` on `model`; a sampler seed is drawn from `seeds` if it names none.
pub(crate) fn request(
    task: v1::GenerateTaskRequest,
    model: &ServedModel,
    seeds: &Seeds,
) -> Result<Request, InvalidRequest> {
    // The fingerprint is the service's business: it decides whether the task belongs here at all.
    let v1::GenerateTaskRequest { prompt, parameters, fingerprint: _, emitted } = task;
    let v1::GenerationParameters {
        max_tokens,
        depth,
        effort,
        kv,
        sampling,
        stop_token_ids,
        ignore_eos,
        logprobs,
        exit_values,
        latent_seed,
        init_scale,
        priority,
        timeout_ms,
    } = parameters.unwrap_or_default();
    let depth = depth_policy(depth, effort.as_deref(), model)?;
    let kv = kv.map_or(Ok(KvPolicy::Full), kv_policy)?;
    // The last token's position never runs, so it takes no K/V.
    let most = model.config.context_length.min(model.positions_that_fit(kv, &depth).saturating_add(1));
    // Where another worker had more room, the answer ends with what it has.
    let room = || most.saturating_sub(prompt.len()).max(emitted.len()).max(1);
    let sampling = sampling.unwrap_or_default();
    if !emitted.is_empty() && sampling.seed.is_none() {
        let reason = "tokens were emitted with a seed that is not set: set sampling.seed";
        return Err(InvalidRequest::new("emitted", reason));
    }
    Ok(Request {
        max_tokens: max_tokens.map_or_else(room, |max_tokens| max_tokens as usize),
        depth,
        kv,
        sampling: self::sampling(sampling, seeds),
        stop_tokens: stop_token_ids.into_iter().collect(),
        ignore_model_stops: ignore_eos,
        logprobs: logprobs.map(|count| count as usize),
        exit_values,
        report_logits: false,
        latent_seed: latent_seed.unwrap_or(model.latent_seed),
        init_scale: init_scale.unwrap_or(1.0),
        recorded_depths: None,
        priority: priority.unwrap_or(0),
        timeout: timeout_ms.map(|timeout_ms| Duration::from_millis(timeout_ms.into())),
        emitted: emitted
            .into_iter()
            .map(|v1::EmittedToken { id, depth }| EmittedToken { token: id, depth })
            .collect(),
        prompt,
    })
}

fn depth_policy(
    depth: Option<v1::DepthPolicy>,
    effort: Option<&str>,
    model: &ServedModel,
) -> Result<DepthPolicy, InvalidRequest> {
    match (depth, effort) {
        (Some(_), Some(effort)) => {
            let reason = format!("reasoning_effort '{effort}' is set too: use only one of the two");
            Err(InvalidRequest::new("depth", reason))
        }
        (None, None) => Ok(model.default_policy),
        (None, Some(name)) => named_policy(name, model),
        (Some(depth), None) => match depth.policy {
            Some(v1::depth_policy::Policy::Fixed(depth)) => Ok(DepthPolicy::Fixed(depth)),
            Some(v1::depth_policy::Policy::Adaptive(adaptive)) => adaptive_policy(adaptive, model),
            None => Err(InvalidRequest::new("depth", "it is empty: use fixed or adaptive")),
        },
    }
}

fn named_policy(name: &str, model: &ServedModel) -> Result<DepthPolicy, InvalidRequest> {
    let named = model.efforts.iter().find(|(effort, _)| effort == name);
    named.map(|(_, policy)| *policy).ok_or_else(|| {
        let names: Vec<&str> = model.efforts.iter().map(|(effort, _)| effort.as_str()).collect();
        let reason = format!("'{name}' is not an effort of this model: use one of {}", names.join(", "));
        InvalidRequest::new("reasoning_effort", reason)
    })
}

fn adaptive_policy(adaptive: v1::AdaptiveDepth, model: &ServedModel) -> Result<DepthPolicy, InvalidRequest> {
    let criterion = criterion(adaptive.criterion)?;
    Ok(DepthPolicy::Adaptive(AdaptiveDepth {
        criterion,
        threshold: adaptive.threshold.unwrap_or(criterion.default_threshold()),
        min: adaptive.min.unwrap_or(1),
        max: adaptive.max.unwrap_or(model.config.mean_recurrence),
        every: adaptive.every.unwrap_or(1),
    }))
}

fn criterion(number: i32) -> Result<Criterion, InvalidRequest> {
    let wrong = |what: String| {
        let names = Criterion::ALL.map(Criterion::name).join(", ");
        InvalidRequest::new("depth.adaptive.criterion", format!("{what}: use one of {names}"))
    };
    match v1::ExitCriterion::try_from(number) {
        Ok(v1::ExitCriterion::LatentDiff) => Ok(Criterion::LatentDiff),
        Ok(v1::ExitCriterion::Cosine) => Ok(Criterion::Cosine),
        Ok(v1::ExitCriterion::Kl) => Ok(Criterion::Kl),
        Ok(v1::ExitCriterion::MinpKl) => Ok(Criterion::MinpKl),
        Ok(v1::ExitCriterion::EntropyDiff) => Ok(Criterion::EntropyDiff),
        Ok(v1::ExitCriterion::ArgmaxStability) => Ok(Criterion::ArgmaxStability),
        Ok(v1::ExitCriterion::Unspecified) => Err(wrong("it is not set".to_owned())),
        Err(_) => Err(wrong(format!("{number} is unknown"))),
    }
}

fn kv_policy(kv: v1::KvPolicy) -> Result<KvPolicy, InvalidRequest> {
    match kv.policy {
        Some(v1::kv_policy::Policy::Full(v1::FullKv {})) => Ok(KvPolicy::Full),
        Some(v1::kv_policy::Policy::Ring(slots)) => Ok(KvPolicy::Ring(slots)),
        Some(v1::kv_policy::Policy::Anchor(slots)) => Ok(KvPolicy::Anchor(slots)),
        None => Err(InvalidRequest::new("kv", "it is empty: use full, ring or anchor")),
    }
}

fn sampling(sampling: v1::Sampling, seeds: &Seeds) -> Sampling {
    let neutral = Sampling::default();
    Sampling {
        logit_bias: BTreeMap::from_iter(sampling.logit_bias),
        repetition_penalty: sampling.repetition_penalty.unwrap_or(neutral.repetition_penalty),
        presence_penalty: sampling.presence_penalty.unwrap_or(neutral.presence_penalty),
        frequency_penalty: sampling.frequency_penalty.unwrap_or(neutral.frequency_penalty),
        temperature: sampling.temperature.unwrap_or(1.0),
        top_k: sampling.top_k.map(|count| count as usize),
        top_p: sampling.top_p.unwrap_or(neutral.top_p),
        min_p: sampling.min_p.unwrap_or(neutral.min_p),
        seed: sampling.seed.unwrap_or_else(|| seeds.draw()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer;
    use crate::config::WorkerConfig;
    use windlass_model::ModelFolder;
    use windlass_proto::v1::KvPlan;

    /// The demo model with memory for this many K/V blocks.
    fn demo(blocks: u32) -> ServedModel {
        let config = WorkerConfig { latent_seed: 5, ..WorkerConfig::new(ModelFolder::demo()).unwrap() };
        let kv = KvPlan { blocks, block_positions: 16, block_bytes: 1 };
        ServedModel::read(&config, "test".to_owned(), kv).unwrap()
    }

    fn converted(parameters: v1::GenerationParameters) -> Result<Request, InvalidRequest> {
        let task = v1::GenerateTaskRequest {
            prompt: vec![1, 12, 19],
            parameters: Some(parameters),
            ..v1::GenerateTaskRequest::default()
        };
        request(task, &demo(10_000), &Seeds::default())
    }

    #[test]
    fn what_is_absent_gets_the_documented_default() {
        let request = converted(v1::GenerationParameters::default()).unwrap();
        let model = demo(10_000);
        let neutral = Sampling { temperature: 1.0, seed: request.sampling.seed, ..Sampling::default() };
        let expected = Request {
            sampling: neutral,
            latent_seed: 5,
            ..Request::greedy(vec![1, 12, 19], 253, model.default_policy, KvPolicy::Full)
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn without_max_tokens_a_request_takes_no_more_than_the_memory_holds() {
        // The default effort takes 16 slots and one for prelude and coda: four blocks of 16 positions fit.
        let task = v1::GenerateTaskRequest { prompt: vec![1, 12, 19], ..v1::GenerateTaskRequest::default() };
        let request = request(task, &demo(4 * 17), &Seeds::default()).unwrap();
        assert_eq!((request.max_tokens, request.kv_blocks()), (62, 4 * 17));
    }

    #[test]
    fn an_adaptive_depth_is_completed_from_criterion_and_model() {
        for criterion in Criterion::ALL {
            let policy = AdaptiveDepth {
                criterion,
                threshold: criterion.default_threshold(),
                min: 1,
                max: 16,
                every: 1,
            };
            let full = answer::depth_policy(&DepthPolicy::Adaptive(policy));
            let Some(v1::depth_policy::Policy::Adaptive(full)) = full.policy else {
                panic!("it is adaptive")
            };
            let bare = v1::AdaptiveDepth { criterion: full.criterion, ..v1::AdaptiveDepth::default() };
            for adaptive in [full, bare] {
                let depth = v1::depth_policy::Policy::Adaptive(adaptive);
                let depth = Some(v1::DepthPolicy { policy: Some(depth) });
                let parameters = v1::GenerationParameters { depth, ..v1::GenerationParameters::default() };
                assert_eq!(converted(parameters).unwrap().depth, DepthPolicy::Adaptive(policy));
            }
        }
    }
}
