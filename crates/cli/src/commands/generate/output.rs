//! What `windlass generate` writes: text, token ids where there is no tokenizer, or JSON.

use std::io::{Write, stderr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use windlass_coordinator::text::{TextStream, Tokenizer};
use windlass_engine::{FinishReason, TokenOutput, Usage};

use crate::counted::counted;

/// Fields of a JSON line that are there on request only.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    pub(super) exit_values: bool,
    pub(super) top_logprobs: bool,
    pub(super) logits: bool,
}

/// Writes tokens as they come.
pub(super) struct Output<W> {
    to: W,
    has_begun: bool,
    /// None for a folder without a tokenizer.
    text: Option<TextStream>,
    /// None for text.
    json: Option<Fields>,
}

/// One token as JSON. Numbers that JSON lacks (NaN, infinities) are null.
#[derive(Serialize)]
struct TokenLine<'a> {
    token: u32,
    text: &'a str,
    depth: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_values: Option<&'a [f64]>,
    logprob: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<Vec<TopLogprob>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<&'a [f32]>,
}

#[derive(Serialize)]
struct TopLogprob {
    token: u32,
    logprob: f32,
}

impl<W: Write> Output<W> {
    /// For the generation after `prompt`.
    pub(super) fn new(
        to: W,
        tokenizer: Option<Arc<Tokenizer>>,
        prompt: &[u32],
        json: Option<Fields>,
    ) -> Self {
        Self {
            to,
            has_begun: false,
            text: tokenizer.map(|tokenizer| TextStream::new(tokenizer, prompt, Vec::new())),
            json,
        }
    }

    /// Writes one token. A stop token has no text of its own.
    pub(super) fn token(&mut self, token: &TokenOutput, is_last: bool) -> Result<()> {
        let mut text = String::new();
        if let Some(stream) = &mut self.text {
            if !token.is_stop {
                text.push_str(&stream.push(token.token)?.text);
            }
            if is_last {
                text.push_str(&stream.finish()?.text);
            }
        }
        match self.json {
            Some(fields) => {
                let line = serde_json::to_string(&line(token, &text, fields))?;
                writeln!(self.to, "{line}")?;
            }
            None if self.text.is_some() => write!(self.to, "{text}")?,
            // As --token-ids takes them.
            None => write!(self.to, "{}{}", if self.has_begun { "," } else { "" }, token.token)?,
        }
        self.has_begun = true;
        Ok(self.to.flush()?)
    }

    /// Ends the text, and sums up on standard error.
    pub(super) fn finish(&mut self, reason: FinishReason, usage: Usage, took: Duration) -> Result<()> {
        if self.json.is_some() {
            return Ok(());
        }
        writeln!(self.to)?;
        let tokens = usage.completion_tokens;
        let mean_depth = usage.completion_core_iterations as f64 / f64::from(tokens);
        let end = match reason {
            FinishReason::Stop => "stop token",
            FinishReason::Length => "length",
            FinishReason::Timeout => "timeout",
        };
        let seconds = took.as_secs_f64();
        let rate = f64::from(tokens) / seconds;
        writeln!(
            stderr(),
            "{} in {seconds:.2} s ({rate:.1} tokens/s), mean depth {mean_depth:.1}, prompt of {}, ended by {end}",
            counted(tokens as usize, "token"),
            counted(usage.prompt_tokens as usize, "token")
        )?;
        Ok(())
    }
}

fn line<'a>(token: &'a TokenOutput, text: &'a str, fields: Fields) -> TokenLine<'a> {
    let top = || token.top_logprobs.iter().map(|&(token, logprob)| TopLogprob { token, logprob }).collect();
    TokenLine {
        token: token.token,
        text,
        depth: token.depth,
        exit_values: fields.exit_values.then_some(&token.exit_values),
        logprob: token.logprob,
        top_logprobs: fields.top_logprobs.then(top),
        logits: if fields.logits { token.logits.as_deref() } else { None },
    }
}
