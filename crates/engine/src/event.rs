//! What the engine says of a request.

use windlass_model::Depth;

use crate::request::RequestId;

/// One thing that happened to a request in a tick.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It has one more token.
    Token(RequestId, TokenOutput),
    /// It is done; nothing follows.
    Finished(RequestId, FinishReason, Usage),
}

/// One generated token.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenOutput {
    /// The token.
    pub token: u32,
    /// Core iterations it took. The first token's are those of the last prompt position.
    pub depth: Depth,
    /// The exit criterion's value at the last check; none for a fixed depth and for the first token.
    pub exit_value: Option<f64>,
    /// Its value at every check, if asked for.
    pub exit_values: Vec<f64>,
    /// Natural logarithm of its probability before any sampling transform, if asked for.
    pub logprob: Option<f32>,
    /// The most likely tokens with theirs, best first, if asked for.
    pub top_logprobs: Vec<(u32, f32)>,
    /// Raw logits, `[vocabulary]`, if asked for.
    pub logits: Option<Vec<f32>>,
    /// Whether it ended the request as a stop token; it is no part of the answer's text.
    pub is_stop: bool,
}

/// Why a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token.
    Stop,
    /// As many tokens as were asked for.
    Length,
    /// Its time was over.
    Timeout,
}

/// What a request cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Positions of the prompt.
    pub prompt_tokens: u32,
    /// Generated tokens, a stop token included.
    pub completion_tokens: u32,
    /// Core iterations of all prompt positions but the last, whose iterations are the first token's.
    pub prompt_core_iterations: u64,
    /// Core iterations of the generated tokens.
    pub completion_core_iterations: u64,
    /// What the generated tokens would have taken at the policy's maximum.
    pub completion_core_iterations_limit: u64,
}
