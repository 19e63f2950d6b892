//! What an item takes from its job, and which items are refused at once.

use windlass_proto::v1::{GenerationParameters, JobItem, JobSpec, Sampling};

use crate::error::JobsError;
use crate::party::Party;

/// Of jobs that give none.
const PRIORITY: i32 = -10;

/// The priority of a party's job that gives none.
pub(crate) fn default_priority(party: &Party) -> i32 {
    party.priority_max.map_or(PRIORITY, |max| max.min(PRIORITY))
}

/// Fills in what the item leaves to its job.
pub(crate) fn complete(item: &mut JobItem, spec: &JobSpec) {
    let of_job = spec.parameters.clone().unwrap_or_default();
    let mut parameters = with_defaults(item.parameters.take().unwrap_or_default(), of_job);
    parameters.priority = parameters.priority.or(spec.priority);
    item.parameters = Some(parameters);
    if item.stop.is_empty() {
        item.stop = spec.stop.clone();
    }
}

/// `own`, and for each field that it leaves out that of `job`.
fn with_defaults(own: GenerationParameters, job: GenerationParameters) -> GenerationParameters {
    let sampling = match (own.sampling, job.sampling) {
        (Some(own), Some(job)) => Some(sampling_with_defaults(own, job)),
        (own, job) => own.or(job),
    };
    // Depth and effort are two ways to say one thing.
    let says_depth = own.depth.is_some() || own.effort.is_some();
    let (depth, effort) = if says_depth { (own.depth, own.effort) } else { (job.depth, job.effort) };
    GenerationParameters {
        max_tokens: own.max_tokens.or(job.max_tokens),
        depth,
        effort,
        kv: own.kv.or(job.kv),
        sampling,
        stop_token_ids: or_list(own.stop_token_ids, job.stop_token_ids),
        ignore_eos: own.ignore_eos || job.ignore_eos,
        logprobs: own.logprobs.or(job.logprobs),
        exit_values: own.exit_values || job.exit_values,
        latent_seed: own.latent_seed.or(job.latent_seed),
        init_scale: own.init_scale.or(job.init_scale),
        priority: own.priority.or(job.priority),
        timeout_ms: own.timeout_ms.or(job.timeout_ms),
    }
}

fn sampling_with_defaults(own: Sampling, job: Sampling) -> Sampling {
    Sampling {
        temperature: own.temperature.or(job.temperature),
        top_k: own.top_k.or(job.top_k),
        top_p: own.top_p.or(job.top_p),
        min_p: own.min_p.or(job.min_p),
        repetition_penalty: own.repetition_penalty.or(job.repetition_penalty),
        presence_penalty: own.presence_penalty.or(job.presence_penalty),
        frequency_penalty: own.frequency_penalty.or(job.frequency_penalty),
        logit_bias: if own.logit_bias.is_empty() { job.logit_bias } else { own.logit_bias },
        seed: own.seed.or(job.seed),
    }
}

fn or_list(own: Vec<u32>, job: Vec<u32>) -> Vec<u32> {
    if own.is_empty() { job } else { own }
}

/// Refuses parameters that no item of this party can have.
pub(crate) fn check(parameters: &GenerationParameters, party: &Party) -> Result<(), JobsError> {
    if let Some(priority) = parameters.priority {
        check_priority(party, "parameters.priority", priority)?;
    }
    if parameters.depth.is_some() && parameters.effort.is_some() {
        return Err(JobsError::invalid("parameters.depth", "effort is set too: use only one of the two"));
    }
    if parameters.logprobs.is_some() {
        return Err(JobsError::invalid("parameters.logprobs", "results have none: leave it out"));
    }
    if parameters.exit_values {
        return Err(JobsError::invalid("parameters.exit_values", "results have none: leave it out"));
    }
    Ok(())
}

/// Refuses a priority above what the party may ask for.
pub(crate) fn check_priority(party: &Party, field: &str, priority: i32) -> Result<(), JobsError> {
    match party.priority_max {
        Some(max) if priority > max => {
            let message = format!("{priority} is above what this API key may ask for: use at most {max}");
            Err(JobsError::invalid(field, message))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_proto::v1::{DepthPolicy, depth_policy};

    fn sampling(temperature: Option<f32>, seed: Option<u64>) -> Option<Sampling> {
        Some(Sampling { temperature, seed, ..Sampling::default() })
    }

    #[test]
    fn an_items_own_parameters_go_before_the_jobs() {
        let depth = Some(DepthPolicy { policy: Some(depth_policy::Policy::Fixed(4)) });
        let of_job = GenerationParameters {
            max_tokens: Some(8),
            depth,
            sampling: sampling(Some(0.0), Some(1)),
            ..GenerationParameters::default()
        };
        let spec = JobSpec {
            parameters: Some(of_job),
            stop: vec!["x".into()],
            priority: Some(-10),
            ..JobSpec::default()
        };
        let mut bare = JobItem::default();
        complete(&mut bare, &spec);
        let completed = bare.parameters.unwrap();
        assert_eq!((completed.max_tokens, completed.depth, completed.priority), (Some(8), depth, Some(-10)));
        assert_eq!(bare.stop, ["x"]);
        let own = GenerationParameters {
            max_tokens: Some(2),
            effort: Some("low".into()),
            sampling: sampling(None, Some(7)),
            priority: Some(3),
            ..GenerationParameters::default()
        };
        let mut item = JobItem { parameters: Some(own), stop: vec!["y".into()], ..JobItem::default() };
        complete(&mut item, &spec);
        let completed = item.parameters.unwrap();
        assert_eq!((completed.max_tokens, completed.depth, completed.priority), (Some(2), None, Some(3)));
        assert_eq!(completed.effort.as_deref(), Some("low"));
        assert_eq!(completed.sampling, sampling(Some(0.0), Some(7)));
        assert_eq!(item.stop, ["y"]);
    }
}
