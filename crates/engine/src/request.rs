//! What a client asks for, and the one place where it is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use windlass_kernels::BLOCK_POSITIONS;
use windlass_model::{Depth, DepthPolicy, KvPolicy, ModelConfig};

use crate::event::{FinishReason, Usage};

/// Most alternatives reported per token.
const MAX_LOGPROBS: usize = 20;

/// Names a request of one engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// One generation. Its answer is a function of these fields and the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Token ids, at least one.
    pub prompt: Vec<u32>,
    /// Tokens generated already, by another engine: the answer goes on behind them as it would have there. Their events do not
    /// come again; all counts include them.
    pub emitted: Vec<EmittedToken>,
    /// Most tokens to generate, at least 1.
    pub max_tokens: usize,
    /// How deep each position goes.
    pub depth: DepthPolicy,
    /// Which K/V slots the core keeps.
    pub kv: KvPolicy,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Tokens that end the generation besides the model's own.
    pub stop_tokens: BTreeSet<u32>,
    /// Goes on past the model's own stop tokens.
    pub ignore_model_stops: bool,
    /// Alternatives to report per token, with log-probabilities.
    pub logprobs: Option<usize>,
    /// Whether to report the exit criterion's value at every check, not only the last.
    pub exit_values: bool,
    /// Whether to report raw logits.
    pub report_logits: bool,
    /// Key of the initial latents.
    pub latent_seed: u64,
    /// Factor on the initial latents.
    pub init_scale: f32,
    /// Depth of each generated token, decided already: by an earlier run that is replayed. Then the depth policy only
    /// bounds them and gives the depth of the prompt, and with it of the first token.
    pub recorded_depths: Option<Vec<Depth>>,
    /// Who goes first when not all fit: the higher number. Changes when the answer comes, never what it is.
    pub priority: i32,
    /// Ends the request this long after it was submitted, with what it has.
    pub timeout: Option<Duration>,
}

/// A token that was generated before the request came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmittedToken {
    /// The token.
    pub token: u32,
    /// Core iterations it took.
    pub depth: Depth,
}

/// How tokens are drawn from logits, in the order of the fields; the default takes the most likely token.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Added to the logits of the tokens named.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Divides positive and multiplies negative logits of tokens in the prompt or already generated. 1 does nothing.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens already generated.
    pub presence_penalty: f32,
    /// Subtracted once per occurrence among the generated tokens.
    pub frequency_penalty: f32,
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f32,
    /// Keeps the k most likely tokens.
    pub top_k: Option<usize>,
    /// Keeps the fewest most likely tokens whose probabilities reach this sum. 1 does nothing.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the most likely one. 0 does nothing.
    pub min_p: f32,
    /// Key of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            logit_bias: BTreeMap::new(),
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
        }
    }
}

/// A request that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidRequest {
    /// The field at fault, as requests name it.
    pub field: String,
    /// The value, what is wrong with it and what would be right.
    pub reason: String,
}

impl InvalidRequest {
    /// Names a field and what is wrong with it.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// What a request is checked against, whatever the engine's memory.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits<'a> {
    /// The model.
    pub model: &'a ModelConfig,
    /// Deepest policy accepted.
    pub max_depth: Depth,
}

/// What an engine has for a request that is alone.
#[derive(Debug, Clone, Copy)]
pub struct MemoryLimits {
    /// K/V blocks.
    pub blocks: usize,
    /// Longest prompt.
    pub max_prompt: usize,
}

impl Request {
    /// A greedy request with the default of every other field.
    pub fn greedy(prompt: Vec<u32>, max_tokens: usize, depth: DepthPolicy, kv: KvPolicy) -> Self {
        Self {
            prompt,
            emitted: Vec::new(),
            max_tokens,
            depth,
            kv,
            sampling: Sampling::default(),
            stop_tokens: BTreeSet::new(),
            ignore_model_stops: false,
            logprobs: None,
            exit_values: false,
            report_logits: false,
            latent_seed: 0,
            init_scale: 1.0,
            recorded_depths: None,
            priority: 0,
            timeout: None,
        }
    }

    /// The most K/V blocks the request can come to hold: every position at every slot of its deepest iteration, and one for
    /// prelude and coda.
    pub fn kv_blocks(&self) -> usize {
        let slots = 1 + self.kv.slots(self.depth.max()) as usize;
        self.positions().div_ceil(BLOCK_POSITIONS) * slots
    }

    /// The most core iterations the request can take.
    pub fn core_iterations_limit(&self) -> u64 {
        self.positions() as u64 * u64::from(self.depth.max())
    }

    /// Positions that run: the last token is never read back.
    pub(crate) fn positions(&self) -> usize {
        (self.prompt.len() + self.max_tokens).saturating_sub(1)
    }

    /// Why nothing follows the emitted tokens, if nothing does. `model_stops` end every answer unless the request goes past
    /// them.
    pub fn end_of_emitted(&self, model_stops: &[u32]) -> Option<FinishReason> {
        let EmittedToken { token, .. } = self.emitted.last()?;
        if self.stops_at(*token, model_stops) {
            return Some(FinishReason::Stop);
        }
        (self.emitted.len() == self.max_tokens).then_some(FinishReason::Length)
    }

    /// Whether `token` ends the answer.
    pub fn stops_at(&self, token: u32, model_stops: &[u32]) -> bool {
        self.stop_tokens.contains(&token) || (!self.ignore_model_stops && model_stops.contains(&token))
    }

    /// What the request has cost with this many generated tokens, which took `completion_core_iterations`.
    pub fn usage(&self, completion_tokens: usize, completion_core_iterations: u64) -> Usage {
        let (max, prompt) = (u64::from(self.depth.max()), self.prompt.len());
        Usage {
            prompt_tokens: prompt as u32,
            completion_tokens: completion_tokens as u32,
            prompt_core_iterations: (prompt as u64 - 1) * max,
            completion_core_iterations,
            completion_core_iterations_limit: completion_tokens as u64 * max,
        }
    }

    /// Checks that the request fits into an engine's memory when it is alone. What does not may fit into another's.
    pub fn validate_memory(&self, limits: MemoryLimits) -> Result<(), InvalidRequest> {
        let MemoryLimits { blocks, max_prompt } = limits;
        let prompt = self.prompt.len();
        if prompt > max_prompt {
            let reason = format!("it has {prompt} tokens: use at most {max_prompt}");
            return Err(InvalidRequest::new("prompt", reason));
        }
        let needed = self.kv_blocks();
        if needed <= blocks {
            return Ok(());
        }
        let reason = format!(
            "prompt, max_tokens and depth need {needed} K/V blocks and there are {blocks}: ask for fewer tokens, \
             a smaller depth or kv ring"
        );
        Err(InvalidRequest::new("max_tokens", reason))
    }

    /// Checks every field, against what all engines of the model have in common.
    pub fn validate(&self, limits: RequestLimits<'_>) -> Result<(), InvalidRequest> {
        self.validate_lengths(limits)?;
        self.depth
            .validate(limits.max_depth)
            .map_err(|error| InvalidRequest::new(error.field(), error.to_string()))?;
        validate_kv(self.kv, limits.max_depth)?;
        let vocabulary = limits.model.vocabulary;
        for (field, token) in [
            ("prompt", unknown(self.prompt.iter(), vocabulary)),
            ("emitted", unknown(self.emitted.iter().map(|emitted| &emitted.token), vocabulary)),
            ("stop_token_ids", unknown(self.stop_tokens.iter(), vocabulary)),
            ("logit_bias", unknown(self.sampling.logit_bias.keys(), vocabulary)),
        ] {
            if let Some(token) = token {
                let reason = format!("token {token} is not in the vocabulary: use ids below {vocabulary}");
                return Err(InvalidRequest::new(field, reason));
            }
        }
        if let Some(count) = self.logprobs.filter(|count| *count > MAX_LOGPROBS) {
            let reason = format!("{count} alternatives are too many: use 0 to {MAX_LOGPROBS}");
            return Err(InvalidRequest::new("logprobs", reason));
        }
        if self.timeout == Some(Duration::ZERO) {
            let reason = "0 is out of range: use at least 1, or leave it out";
            return Err(InvalidRequest::new("timeout_ms", reason));
        }
        check("init_scale", self.init_scale, self.init_scale >= 0.0, "a finite number of at least 0")?;
        self.validate_emitted()?;
        self.validate_recorded_depths()?;
        self.sampling.validate()
    }

    fn validate_lengths(&self, limits: RequestLimits<'_>) -> Result<(), InvalidRequest> {
        let (prompt, context) = (self.prompt.len(), limits.model.context_length);
        if prompt == 0 {
            return Err(InvalidRequest::new("prompt", "it has no tokens: give at least one"));
        }
        if self.max_tokens == 0 {
            return Err(InvalidRequest::new("max_tokens", "0 is out of range: use at least 1"));
        }
        if prompt >= context {
            let reason = format!("it has {prompt} tokens: use at most {}", context - 1);
            return Err(InvalidRequest::new("prompt", reason));
        }
        if prompt + self.max_tokens > context {
            let (max_tokens, left) = (self.max_tokens, context - prompt);
            let reason = format!(
                "{max_tokens} and a prompt of {prompt} tokens exceed the context of {context}: use at most {left}"
            );
            return Err(InvalidRequest::new("max_tokens", reason));
        }
        Ok(())
    }

    fn validate_emitted(&self) -> Result<(), InvalidRequest> {
        let (count, most) = (self.emitted.len(), self.max_tokens);
        if count > most {
            let reason = format!("{count} tokens are more than max_tokens: use at most {most}");
            return Err(InvalidRequest::new("emitted", reason));
        }
        self.validate_depths("emitted", self.emitted.iter().map(|emitted| emitted.depth))
    }

    fn validate_recorded_depths(&self) -> Result<(), InvalidRequest> {
        let Some(depths) = &self.recorded_depths else { return Ok(()) };
        if depths.len() < self.max_tokens {
            let reason =
                format!("{} depths for {} tokens: give one per token", depths.len(), self.max_tokens);
            return Err(InvalidRequest::new("recorded_depths", reason));
        }
        self.validate_depths("recorded_depths", depths.iter().copied())
    }

    /// Checks that generated tokens can have taken these depths.
    fn validate_depths(
        &self,
        field: &str,
        mut depths: impl Iterator<Item = Depth> + Clone,
    ) -> Result<(), InvalidRequest> {
        let max = self.depth.max();
        if let Some(depth) = depths.clone().find(|depth| !(1..=max).contains(depth)) {
            let reason = format!("depth {depth} is out of range: use 1 to {max}");
            return Err(InvalidRequest::new(field, reason));
        }
        if let Some(first) = depths.next().filter(|first| *first != max) {
            let reason = format!("the first token takes the prompt's depth {max}, not {first}");
            return Err(InvalidRequest::new(field, reason));
        }
        Ok(())
    }
}

impl Sampling {
    /// Whether any penalty changes logits.
    pub(crate) fn has_penalties(&self) -> bool {
        let Self { repetition_penalty, presence_penalty, frequency_penalty, .. } = *self;
        repetition_penalty != 1.0 || presence_penalty != 0.0 || frequency_penalty != 0.0
    }

    /// Whether logits are looked at as they are.
    pub(crate) fn takes_logits_as_they_are(&self) -> bool {
        self.logit_bias.is_empty() && !self.has_penalties()
    }

    /// Whether it takes the most likely token of the logits as they are.
    pub(crate) fn is_plainly_greedy(&self) -> bool {
        self.temperature == 0.0 && self.takes_logits_as_they_are()
    }

    fn validate(&self) -> Result<(), InvalidRequest> {
        let Self { temperature, top_p, min_p, repetition_penalty, .. } = *self;
        check("temperature", temperature, temperature >= 0.0, "a finite number of at least 0")?;
        check("top_p", top_p, top_p > 0.0 && top_p <= 1.0, "a number above 0 and at most 1")?;
        check("min_p", min_p, (0.0..=1.0).contains(&min_p), "a number from 0 to 1")?;
        check("repetition_penalty", repetition_penalty, repetition_penalty > 0.0, "a finite number above 0")?;
        check("presence_penalty", self.presence_penalty, true, "a finite number")?;
        check("frequency_penalty", self.frequency_penalty, true, "a finite number")?;
        if self.top_k == Some(0) {
            return Err(InvalidRequest::new("top_k", "0 is out of range: use at least 1, or leave it out"));
        }
        for (token, bias) in &self.logit_bias {
            check(&format!("logit_bias.{token}"), *bias, true, "a finite number")?;
        }
        Ok(())
    }
}

fn validate_kv(kv: KvPolicy, max: Depth) -> Result<(), InvalidRequest> {
    let (name, slots) = match kv {
        KvPolicy::Full => return Ok(()),
        KvPolicy::Ring(slots) => ("ring", slots),
        KvPolicy::Anchor(slots) => ("anchor", slots),
    };
    if (1..=max).contains(&slots) {
        return Ok(());
    }
    Err(InvalidRequest::new("kv", format!("{name} {slots} is out of range: use 1 to {max}")))
}

/// The first token that is not below `vocabulary`.
fn unknown<'a>(mut tokens: impl Iterator<Item = &'a u32>, vocabulary: usize) -> Option<&'a u32> {
    tokens.find(|token| **token as usize >= vocabulary)
}

fn check(field: &str, value: f32, in_range: bool, remedy: &str) -> Result<(), InvalidRequest> {
    if value.is_finite() && in_range {
        return Ok(());
    }
    Err(InvalidRequest::new(field, format!("{value} is out of range: use {remedy}")))
}
