use std::sync::Arc;
use tokio::time::Instant;
use windlass_proto::v1::{FinishReason, GenerationParameters, Token, Usage};

use super::Admission;
use crate::metrics::{self, Ending};
use crate::registry::{DepthLimit, Model};

/// Counts what one generation used and tells the metrics, once, how it ended.
pub(super) struct Meter {
    model: Arc<Model>,
    depth: DepthLimit,
    prompt_tokens: u32,
    completion_tokens: u32,
    core_iterations: u64,
    received: Instant,
    admission: Arc<Admission>,
    last_token: Option<Instant>,
    /// A worker took it, and with it the prompt.
    taken: bool,
    ended: bool,
}

impl Meter {
    pub(super) fn new(
        model: Arc<Model>,
        prompt_tokens: usize,
        parameters: &GenerationParameters,
        received: Instant,
        admission: Arc<Admission>,
    ) -> Self {
        Self {
            depth: model.depth_limit(parameters),
            model,
            prompt_tokens: u32::try_from(prompt_tokens).unwrap_or(u32::MAX),
            completion_tokens: 0,
            core_iterations: 0,
            received,
            admission,
            last_token: None,
            taken: false,
            ended: false,
        }
    }

    /// A worker took the request: from now on it is at work on the prompt.
    pub(super) fn taken(&mut self) {
        self.taken = true;
    }

    pub(super) fn token(&mut self, token: &Token) {
        let now = Instant::now();
        match self.last_token.replace(now) {
            None => self.model.metrics.first_token(now - self.received, token.depth),
            Some(last) => self.model.metrics.next_token(now - last, token.depth),
        }
        self.completion_tokens += 1;
        self.core_iterations += u64::from(token.depth);
    }

    /// What was used so far, as the worker would say it.
    pub(super) fn usage(&self) -> Usage {
        let max = u64::from(self.depth.max);
        Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            // The last prompt position's iterations are the first token's.
            prompt_core_iterations: u64::from(self.prompt_tokens.saturating_sub(1)) * max,
            completion_core_iterations: self.core_iterations,
            completion_core_iterations_limit: u64::from(self.completion_tokens) * max,
        }
    }

    pub(super) fn finish(&mut self, reason: FinishReason, usage: &Usage) {
        let ending = match reason {
            FinishReason::Length => Ending::Length,
            FinishReason::Timeout => Ending::Timeout,
            FinishReason::Stop | FinishReason::Unspecified => Ending::Stop,
        };
        self.model.metrics.success(ending, self.received.elapsed());
        self.end(usage);
    }

    /// The generation ended with an error of this code; the front counts that.
    pub(super) fn fail(&mut self, code: &'static str) {
        self.admission.fail(code);
        self.end(&self.usage());
    }

    /// The same before it began, so that nothing was used.
    pub(super) fn refused(&mut self, code: &'static str) {
        self.admission.fail(code);
        self.ended = true;
    }

    fn end(&mut self, usage: &Usage) {
        self.ended = true;
        self.model.metrics.usage(usage);
        self.admission.charge(u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens));
        self.model.observe_depth(self.depth, self.completion_tokens, self.core_iterations);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (began, failure) = (self.last_token.is_some(), self.admission.failure());
        match failure {
            // Another choice failed, and the client never sees the rest of this one.
            Some(code) if began => metrics::failure(code),
            Some(_) => {}
            None => self.model.metrics.success(Ending::Abort, self.received.elapsed()),
        }
        // Of a request that failed before it began nothing was used.
        if began || (self.taken && failure.is_none()) {
            self.end(&self.usage());
        }
    }
}
