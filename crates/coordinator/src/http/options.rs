//! From the fields that both endpoints share to what the engine is asked for.

use windlass_proto::v1::{GenerationParameters, Sampling};

use super::error::ApiError;
use super::policy::Kv;
use super::request::{Body, Stop};
use super::strict::Object;

pub(super) const LOGPROBS_LIMIT: u32 = 20;

/// What both endpoints do with a request, besides its prompt.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) model: String,
    pub(super) parameters: GenerationParameters,
    pub(super) stop: Vec<String>,
    pub(super) choices: u32,
    /// `None`: answer as a whole.
    pub(super) stream: Option<UsageChunks>,
    pub(super) extras: Extras,
}

/// Where a stream reports usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsageChunks {
    Never,
    /// In a chunk of its own after all others.
    Last,
    /// In every chunk, and in one of its own.
    Every,
}

/// What is reported of each token, besides its text.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the request")]
pub(super) struct Extras {
    pub(super) depths: bool,
    pub(super) exit_values: bool,
    pub(super) token_ids: bool,
    pub(super) logprobs: bool,
}

impl Extras {
    /// Whether every token matters, even one that added no text.
    pub(super) fn any(self) -> bool {
        self.depths || self.exit_values || self.token_ids || self.logprobs
    }
}

/// Takes the shared fields; `logprobs` is the endpoint's own.
pub(super) fn options(body: &mut Body, logprobs: Option<u32>) -> Result<Options, ApiError> {
    if let Some(user) = body.user.take() {
        tracing::debug!(user, "request");
    }
    let choices = body.n.unwrap_or(1);
    if body.depth.is_some() && body.reasoning_effort.is_some() {
        return Err(ApiError::invalid(
            "depth",
            "depth and reasoning_effort exclude each other: send one of them",
        ));
    }
    let extras = Extras {
        depths: body.return_depths == Some(true),
        exit_values: body.return_exit_values == Some(true),
        token_ids: body.return_token_ids == Some(true),
        logprobs: logprobs.is_some(),
    };
    let stop = match body.stop.take() {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Many(stop)) => stop,
    };
    let stream = stream(body)?;
    let model = body.model.take().unwrap_or_default();
    Ok(Options { model, parameters: parameters(body, logprobs)?, stop, choices, stream, extras })
}

fn stream(body: &mut Body) -> Result<Option<UsageChunks>, ApiError> {
    let options = body.stream_options.take();
    if body.stream != Some(true) {
        return match options {
            None => Ok(None),
            Some(_) => Err(ApiError::invalid("stream_options", "stream_options need \"stream\": true")),
        };
    }
    let Object(options) = options.unwrap_or_default();
    let include = options.include_usage == Some(true);
    Ok(Some(match options.continuous_usage_stats {
        Some(true) if !include => {
            let message = "continuous_usage_stats needs \"include_usage\": true";
            return Err(ApiError::invalid("stream_options.continuous_usage_stats", message));
        }
        Some(true) => UsageChunks::Every,
        _ if include => UsageChunks::Last,
        _ => UsageChunks::Never,
    }))
}

fn parameters(body: &mut Body, logprobs: Option<u32>) -> Result<GenerationParameters, ApiError> {
    Ok(GenerationParameters {
        max_tokens: body.max_tokens,
        depth: body.depth.take().map(|Object(depth)| depth.policy()).transpose()?,
        effort: body.reasoning_effort.take(),
        kv: body.kv.take().map(Kv::policy).transpose()?,
        sampling: Some(Sampling {
            temperature: body.temperature,
            top_k: body.top_k,
            top_p: body.top_p,
            min_p: body.min_p,
            repetition_penalty: body.repetition_penalty,
            presence_penalty: body.presence_penalty,
            frequency_penalty: body.frequency_penalty,
            logit_bias: body.logit_bias.take().unwrap_or_default(),
            seed: body.seed,
        }),
        stop_token_ids: body.stop_token_ids.take().unwrap_or_default(),
        ignore_eos: body.ignore_eos == Some(true),
        logprobs,
        exit_values: body.return_exit_values == Some(true),
        latent_seed: body.latent_seed,
        init_scale: body.init_scale,
        priority: body.priority,
        timeout_ms: body.timeout_ms,
    })
}

/// The first of the fields that is present.
pub(super) fn present(fields: &[(&'static str, bool)]) -> Option<&'static str> {
    all_present(fields).first().copied()
}

/// All of the fields that are present.
fn all_present(fields: &[(&'static str, bool)]) -> Vec<&'static str> {
    fields.iter().filter_map(|(name, present)| present.then_some(*name)).collect()
}

/// Refuses fields that belong to another endpoint.
pub(super) fn refuse_foreign(fields: &[(&'static str, bool)], endpoint: &str) -> Result<(), ApiError> {
    let foreign = all_present(fields);
    match foreign.first() {
        None => Ok(()),
        Some(first) => {
            let belong = if foreign.len() == 1 { "it belongs" } else { "they belong" };
            Err(ApiError::invalid(*first, format!("{}: {belong} to {endpoint}", unknown(&foreign))))
        }
    }
}

/// Names fields that an endpoint does not have.
pub(super) fn unknown<S: AsRef<str>>(fields: &[S]) -> String {
    let names = fields.iter().map(|field| format!("'{}'", field.as_ref())).collect::<Vec<_>>().join(", ");
    if fields.len() == 1 { format!("unknown field {names}") } else { format!("unknown fields {names}") }
}
