use std::time::Duration;

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};
use windlass_proto::v1::Usage;

const PROMPT_TOKENS: &str = "windlass_prompt_tokens_total";
const GENERATION_TOKENS: &str = "windlass_generation_tokens_total";
const SUCCESS: &str = "windlass_request_success_total";
const CORE_ITERATIONS: &str = "windlass_core_iterations_total";
const CORE_ITERATIONS_SAVED: &str = "windlass_core_iterations_saved_total";
pub(super) const FIRST_TOKEN: &str = "windlass_time_to_first_token_seconds";
pub(super) const INTER_TOKEN: &str = "windlass_inter_token_latency_seconds";
pub(super) const END_TO_END: &str = "windlass_e2e_request_latency_seconds";
pub(super) const TOKEN_DEPTH: &str = "windlass_token_depth";

pub(super) fn describe() {
    describe_counter!(PROMPT_TOKENS, "Prompt tokens of generations that ended");
    describe_counter!(GENERATION_TOKENS, "Tokens generated");
    describe_counter!(
        SUCCESS,
        "Generations that ended without error, by reason: stop, length, timeout, or abort by the client"
    );
    describe_histogram!(FIRST_TOKEN, Unit::Seconds, "From a request's arrival to its first token");
    describe_histogram!(INTER_TOKEN, Unit::Seconds, "From one token of a generation to the next");
    describe_histogram!(END_TO_END, Unit::Seconds, "From a request's arrival to the end of its generation");
    describe_histogram!(TOKEN_DEPTH, "Core iterations a generated token took");
    describe_counter!(
        CORE_ITERATIONS,
        "Core iterations of generations that ended, by phase: prompt or completion"
    );
    describe_counter!(
        CORE_ITERATIONS_SAVED,
        "Core iterations that generated tokens did not take, below their policy's maximum"
    );
}

/// How a generation ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Stop,
    Length,
    Timeout,
    /// By the client.
    Abort,
}

impl Ending {
    const ALL: [Self; 4] = [Self::Stop, Self::Length, Self::Timeout, Self::Abort];

    /// The label.
    fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Timeout => "timeout",
            Self::Abort => "abort",
        }
    }
}

/// What is counted of one model, visible from the start. To be made once for each, after the recorder: finding a counter by its
/// name takes longer than counting.
#[derive(Debug)]
pub(crate) struct ModelMetrics {
    prompt_tokens: Counter,
    generation_tokens: Counter,
    endings: [Counter; Ending::ALL.len()],
    prompt_iterations: Counter,
    completion_iterations: Counter,
    iterations_saved: Counter,
    first_token: Histogram,
    next_token: Histogram,
    end_to_end: Histogram,
    token_depth: Histogram,
}

impl ModelMetrics {
    pub(crate) fn new(model: &str) -> Self {
        let count = |name: &'static str| counter!(name, "model" => model.to_owned());
        let spread = |name: &'static str| histogram!(name, "model" => model.to_owned());
        let iterations =
            |phase: &'static str| counter!(CORE_ITERATIONS, "model" => model.to_owned(), "phase" => phase);
        let ending = |ending: Ending| counter!(SUCCESS, "model" => model.to_owned(), "finished_reason" => ending.name());
        Self {
            prompt_tokens: count(PROMPT_TOKENS),
            generation_tokens: count(GENERATION_TOKENS),
            endings: Ending::ALL.map(ending),
            prompt_iterations: iterations("prompt"),
            completion_iterations: iterations("completion"),
            iterations_saved: count(CORE_ITERATIONS_SAVED),
            first_token: spread(FIRST_TOKEN),
            next_token: spread(INTER_TOKEN),
            end_to_end: spread(END_TO_END),
            token_depth: spread(TOKEN_DEPTH),
        }
    }

    pub(crate) fn first_token(&self, after: Duration, depth: u32) {
        self.first_token.record(after);
        self.token(depth);
    }

    pub(crate) fn next_token(&self, after: Duration, depth: u32) {
        self.next_token.record(after);
        self.token(depth);
    }

    /// A generation that took so long ended without an error.
    pub(crate) fn success(&self, ending: Ending, after: Duration) {
        self.endings[ending as usize].increment(1);
        self.end_to_end.record(after);
    }

    /// What a generation used. Its tokens were counted one by one.
    pub(crate) fn usage(&self, usage: &Usage) {
        let (taken, limit) = (usage.completion_core_iterations, usage.completion_core_iterations_limit);
        self.prompt_tokens.increment(usage.prompt_tokens.into());
        self.prompt_iterations.increment(usage.prompt_core_iterations);
        self.completion_iterations.increment(taken);
        self.iterations_saved.increment(limit.saturating_sub(taken));
    }

    fn token(&self, depth: u32) {
        self.generation_tokens.increment(1);
        self.token_depth.record(f64::from(depth));
    }
}
