use windlass_proto::v1;

/// What a generation says.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// More text and tokens.
    Delta(Delta),
    /// The last event.
    Finish(Finish),
}

/// More of the answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    /// Text that is certain now; it can lag behind the tokens.
    pub text: String,
    /// Tokens since the last delta.
    pub tokens: Vec<Token>,
}

/// One generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// In the model's vocabulary.
    pub id: u32,
    /// Core iterations it took.
    pub depth: u32,
    /// The exit criterion's value when the position stopped; `None` for a fixed depth.
    pub exit_value: Option<f64>,
    /// The value at every check, if asked for.
    pub exit_values: Vec<f64>,
    /// Natural logarithm of its probability, if asked for.
    pub logprob: Option<f32>,
    /// The likeliest tokens, best first, if asked for.
    pub top_logprobs: Vec<TokenLogprob>,
    /// It ended the generation as a stop token and is no part of the text.
    pub is_stop: bool,
}

/// A token that might have been.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// In the model's vocabulary.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// How a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// Why.
    pub reason: FinishReason,
    /// What it used.
    pub usage: Usage,
    /// The sampler's seed, so that the answer can be had again.
    pub seed: u64,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token or a stop string.
    Stop,
    /// `max_tokens` or the context's end.
    Length,
    /// `timeout_ms`; the answer is what there was.
    Timeout,
}

/// What a generation used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
    /// Core iterations of the prompt's positions.
    pub prompt_core_iterations: u64,
    /// Core iterations of the generated tokens.
    pub completion_core_iterations: u64,
    /// What the generated tokens would have taken at the policy's maximum depth.
    pub completion_core_iterations_limit: u64,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// How it ended.
    pub finish: Finish,
}

impl Generated {
    /// Core iterations of each token.
    pub fn depths(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.depth).collect()
    }
}

impl Event {
    /// `None` for an event this client does not know.
    pub(crate) fn read(response: v1::GenerateResponse) -> Option<Self> {
        Some(match response.event? {
            v1::generate_response::Event::Delta(delta) => Self::Delta(Delta {
                text: delta.text,
                tokens: delta.tokens.into_iter().map(Token::from).collect(),
            }),
            v1::generate_response::Event::Finish(finish) => Self::Finish(finish.into()),
        })
    }
}

impl From<v1::Token> for Token {
    fn from(token: v1::Token) -> Self {
        let top = |top: v1::TokenLogprob| TokenLogprob { id: top.id, logprob: top.logprob };
        Self {
            id: token.id,
            depth: token.depth,
            exit_value: token.exit_value,
            exit_values: token.exit_values,
            logprob: token.logprob,
            top_logprobs: token.top_logprobs.into_iter().map(top).collect(),
            is_stop: token.is_stop,
        }
    }
}

impl From<v1::Finish> for Finish {
    fn from(finish: v1::Finish) -> Self {
        let reason = match finish.reason() {
            v1::FinishReason::Length => FinishReason::Length,
            v1::FinishReason::Timeout => FinishReason::Timeout,
            v1::FinishReason::Stop | v1::FinishReason::Unspecified => FinishReason::Stop,
        };
        let usage = finish.usage.unwrap_or_default();
        let usage = Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            prompt_core_iterations: usage.prompt_core_iterations,
            completion_core_iterations: usage.completion_core_iterations,
            completion_core_iterations_limit: usage.completion_core_iterations_limit,
        };
        Self { reason, usage, seed: finish.seed }
    }
}
