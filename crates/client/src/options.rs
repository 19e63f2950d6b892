use std::collections::HashMap;

use windlass_proto::v1::{self, depth_policy, generate_request, kv_policy};

/// What to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// Empty: the only model served.
    pub model: String,
    /// What to continue.
    pub prompt: Prompt,
    /// How.
    pub options: GenerateOptions,
}

impl GenerateRequest {
    /// Continues a text by the only model served, with its defaults.
    pub fn text(text: impl Into<String>) -> Self {
        Self { model: String::new(), prompt: Prompt::Text(text.into()), options: GenerateOptions::default() }
    }
}

/// What to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Tokenised with the model's special tokens.
    Text(String),
    /// As they are.
    TokenIds(Vec<u32>),
    /// Rendered with the model's chat template.
    Chat(Vec<Message>),
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Such as `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// How to generate. What is absent takes the server's or the model's default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerateOptions {
    /// Most tokens, at least 1. Absent: what the context and the K/V memory leave.
    pub max_tokens: Option<u32>,
    /// Core iterations per token. Absent: the model's default effort.
    pub depth: Option<Depth>,
    /// Which K/V slots the core writes. Absent: `Full`.
    pub kv: Option<Kv>,
    /// How a token is drawn.
    pub sampling: Sampling,
    /// The text ends before the first of these; at most 16, none empty.
    pub stop: Vec<String>,
    /// These tokens end the generation too.
    pub stop_token_ids: Vec<u32>,
    /// Go on past the model's own stop tokens.
    pub ignore_eos: bool,
    /// Report log-probabilities, with this many alternatives per token (0 to 20).
    pub logprobs: Option<u32>,
    /// Report the exit criterion's value at every check, not only the last.
    pub exit_values: bool,
    /// Seed of the initial latents. Absent: the worker's own.
    pub latent_seed: Option<u64>,
    /// Factor on the initial latents, 0 for the zero state. Absent: 1.
    pub init_scale: Option<f32>,
    /// Of the waiting requests, those of higher priority go first. Absent: 0.
    pub priority: Option<i32>,
    /// From the moment the worker takes the request, at least 1; then the answer ends with what it has.
    pub timeout_ms: Option<u32>,
}

/// How many core iterations a token gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Depth {
    /// This many.
    Fixed(u32),
    /// As many as the criterion wants.
    Adaptive(Adaptive),
    /// As the model's effort of this name says.
    Effort(String),
}

/// Stops a token when a value passes a threshold. What is absent takes the server's default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adaptive {
    /// What is compared.
    pub criterion: Criterion,
    /// Against what. Absent: the criterion's own default.
    pub threshold: Option<f64>,
    /// Fewest iterations. Absent: 1.
    pub min: Option<u32>,
    /// Most iterations. Absent: the model's default depth.
    pub max: Option<u32>,
    /// Iterations from one check to the next. Absent: 1.
    pub every: Option<u32>,
}

impl Adaptive {
    /// The criterion with its defaults.
    pub fn new(criterion: Criterion) -> Self {
        Self { criterion, threshold: None, min: None, max: None, every: None }
    }
}

/// What an adaptive depth compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Criterion {
    /// Relative change of the latent.
    LatentDiff,
    /// One minus the cosine between consecutive latents.
    Cosine,
    /// Divergence between consecutive distributions.
    Kl,
    /// The same, of the likelier tokens only.
    MinpKl,
    /// Change of the distribution's entropy.
    EntropyDiff,
    /// Consecutive checks with the same likeliest token.
    ArgmaxStability,
}

/// Which K/V slots the core writes at each depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kv {
    /// One for every depth.
    Full,
    /// This many, used in turn.
    Ring(u32),
    /// This many for the first depths, and one more that all deeper ones use.
    Anchor(u32),
}

/// How a token is drawn. What is absent does nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token. Absent: 1.
    pub temperature: Option<f32>,
    /// Keep the k likeliest tokens.
    pub top_k: Option<u32>,
    /// Keep the likeliest tokens up to this sum, in (0, 1].
    pub top_p: Option<f32>,
    /// Keep tokens this fraction as likely as the likeliest, in [0, 1].
    pub min_p: Option<f32>,
    /// Weakens tokens already seen; above 0.
    pub repetition_penalty: Option<f32>,
    /// Subtracted from the logits of tokens already generated.
    pub presence_penalty: Option<f32>,
    /// Subtracted once per earlier occurrence.
    pub frequency_penalty: Option<f32>,
    /// Added to the logits of these tokens.
    pub logit_bias: HashMap<u32, f32>,
    /// Absent: drawn by the server, and reported in `Finish`.
    pub seed: Option<u64>,
}

impl From<GenerateRequest> for v1::GenerateRequest {
    fn from(request: GenerateRequest) -> Self {
        let prompt = match request.prompt {
            Prompt::Text(text) => generate_request::Prompt::Text(text),
            Prompt::TokenIds(ids) => generate_request::Prompt::TokenIds(v1::TokenIds { ids }),
            Prompt::Chat(messages) => {
                let message = |turn: Message| v1::ChatMessage { role: turn.role, content: turn.content };
                generate_request::Prompt::Chat(v1::Chat {
                    messages: messages.into_iter().map(message).collect(),
                })
            }
        };
        let (stop, parameters) = request.options.into_parameters();
        Self { model: request.model, prompt: Some(prompt), parameters: Some(parameters), stop }
    }
}

impl GenerateOptions {
    /// The stop strings, and the rest.
    pub fn into_parameters(self) -> (Vec<String>, v1::GenerationParameters) {
        let (depth, effort) = match self.depth {
            Some(Depth::Effort(name)) => (None, Some(name)),
            Some(Depth::Fixed(depth)) => (Some(depth_policy::Policy::Fixed(depth)), None),
            Some(Depth::Adaptive(adaptive)) => (Some(depth_policy::Policy::Adaptive(adaptive.into())), None),
            None => (None, None),
        };
        let kv = self.kv.map(|kv| match kv {
            Kv::Full => kv_policy::Policy::Full(v1::FullKv {}),
            Kv::Ring(slots) => kv_policy::Policy::Ring(slots),
            Kv::Anchor(slots) => kv_policy::Policy::Anchor(slots),
        });
        let parameters = v1::GenerationParameters {
            max_tokens: self.max_tokens,
            depth: depth.map(|policy| v1::DepthPolicy { policy: Some(policy) }),
            effort,
            kv: kv.map(|policy| v1::KvPolicy { policy: Some(policy) }),
            sampling: Some(self.sampling.into()),
            stop_token_ids: self.stop_token_ids,
            ignore_eos: self.ignore_eos,
            logprobs: self.logprobs,
            exit_values: self.exit_values,
            latent_seed: self.latent_seed,
            init_scale: self.init_scale,
            priority: self.priority,
            timeout_ms: self.timeout_ms,
        };
        (self.stop, parameters)
    }
}

impl From<Sampling> for v1::Sampling {
    fn from(sampling: Sampling) -> Self {
        Self {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            logit_bias: sampling.logit_bias,
            seed: sampling.seed,
        }
    }
}

impl From<Adaptive> for v1::AdaptiveDepth {
    fn from(adaptive: Adaptive) -> Self {
        let criterion = match adaptive.criterion {
            Criterion::LatentDiff => v1::ExitCriterion::LatentDiff,
            Criterion::Cosine => v1::ExitCriterion::Cosine,
            Criterion::Kl => v1::ExitCriterion::Kl,
            Criterion::MinpKl => v1::ExitCriterion::MinpKl,
            Criterion::EntropyDiff => v1::ExitCriterion::EntropyDiff,
            Criterion::ArgmaxStability => v1::ExitCriterion::ArgmaxStability,
        };
        let Adaptive { threshold, min, max, every, .. } = adaptive;
        Self { criterion: criterion.into(), threshold, min, max, every }
    }
}
