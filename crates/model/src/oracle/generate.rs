//! One sequence from prompt to last token.

use std::ops::Range;

use super::{Oracle, OracleCache};
use crate::depth::{Depth, DepthPolicy};
use crate::exit::{self, ExitState};
use crate::kv::KvPolicy;

/// What to generate. Stop tokens do not end it.
#[derive(Debug, Clone)]
pub struct OracleRequest {
    /// At least one token.
    pub prompt: Vec<u32>,
    /// How many tokens to generate, at least 1.
    pub max_tokens: usize,
    /// How deep each position goes.
    pub depth: DepthPolicy,
    /// Where core keys and values are kept.
    pub kv: KvPolicy,
    /// Take these tokens, at least `max_tokens` of them, whatever the logits say; else the most likely ones.
    pub forced_tokens: Option<Vec<u32>>,
}

/// One generated token, and how the position it was read from came to it.
#[derive(Debug, Clone, PartialEq)]
pub struct OracleToken {
    /// The token taken.
    pub token: u32,
    /// Core iterations of the position whose logits gave it. The first token's is the prompt's last, which has
    /// the policy's maximum.
    pub depth: Depth,
    /// The exit criterion's value at every check of that position; none for prompt positions and for fixed depths.
    pub exit_values: Vec<f64>,
    /// The logits it was taken from, `[vocabulary]`.
    pub logits: Vec<f32>,
}

impl Oracle {
    /// Generates one sequence. `latents` gives the initial latent, `[hidden]`, of a position.
    ///
    /// Prompt positions move through the policy's maximum depth together; then tokens come one by one.
    ///
    /// # Panics
    /// On an empty prompt, a token outside the vocabulary, or too few forced tokens.
    pub fn generate(&self, request: &OracleRequest, latents: &dyn Fn(usize) -> Vec<f32>) -> Vec<OracleToken> {
        let mut cache = self.cache(request.kv);
        let mut generated: Vec<OracleToken> = Vec::new();
        let mut logits = self.prompt(&mut cache, request, latents);
        let (mut depth, mut exit_values) = (request.depth.max(), Vec::new());
        loop {
            let token = match &request.forced_tokens {
                Some(tokens) => tokens[generated.len()],
                None => exit::argmax(&logits) as u32,
            };
            let position = request.prompt.len() + generated.len();
            generated.push(OracleToken { token, depth, exit_values, logits });
            if generated.len() >= request.max_tokens {
                return generated;
            }
            (logits, depth, exit_values) =
                self.decode(&mut cache, token, position, request.depth, latents(position));
        }
    }

    /// Runs the prompt; the last position's logits.
    fn prompt(
        &self,
        cache: &mut OracleCache,
        request: &OracleRequest,
        latents: &dyn Fn(usize) -> Vec<f32>,
    ) -> Vec<f32> {
        let positions: Vec<usize> = (0..request.prompt.len()).collect();
        let embeddings = self.prelude(cache, &request.prompt, &positions);
        let mut state: Vec<f32> = positions.iter().flat_map(|&position| latents(position)).collect();
        for i in 0..request.depth.max() {
            state = self.iterate(cache, &state, &embeddings, &positions, i);
        }
        let logits = self.coda_logits(cache, &state, &positions);
        logits[last_row(logits.len(), self.config.vocabulary)].to_vec()
    }

    /// Runs one generated token; its logits, depth and exit values.
    fn decode(
        &self,
        cache: &mut OracleCache,
        token: u32,
        position: usize,
        policy: DepthPolicy,
        latent: Vec<f32>,
    ) -> (Vec<f32>, Depth, Vec<f64>) {
        let positions = [position];
        let embedding = self.prelude(cache, &[token], &positions);
        let mut exit = match policy {
            DepthPolicy::Fixed(_) => None,
            DepthPolicy::Adaptive(adaptive) => {
                Some((adaptive, ExitState::new(adaptive.criterion, self.config.vocabulary)))
            }
        };
        let (mut state, mut depth, mut values) = (latent, 0, Vec::new());
        while depth < policy.max() {
            let previous = state;
            state = self.iterate(cache, &previous, &embedding, &positions, depth);
            depth += 1;
            let Some((adaptive, exit)) =
                exit.as_mut().filter(|(adaptive, _)| exit::is_checked(adaptive, depth))
            else {
                continue;
            };
            let value = if adaptive.criterion.needs_logits() {
                exit.update_logits(&self.coda_logits(cache, &state, &positions))
            } else {
                exit.update_latent(&previous, &state)
            };
            values.push(value);
            if exit::may_stop(adaptive, depth, value) {
                break;
            }
        }
        (self.coda_logits(cache, &state, &positions), depth, values)
    }
}

fn last_row(length: usize, row: usize) -> Range<usize> {
    length - row..length
}
