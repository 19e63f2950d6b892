//! Log-probabilities in the two shapes OpenAI's clients know.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use windlass_proto::v1::Token;

use super::response::Shape;
use crate::text::Tokenizer;

/// JSON has no infinity: what OpenAI sends for an impossible token.
const IMPOSSIBLE: f32 = -9999.0;

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Logprobs {
    Completion {
        tokens: Vec<String>,
        token_logprobs: Vec<f32>,
        top_logprobs: Vec<BTreeMap<String, f32>>,
        /// Characters of the choice's text before the token.
        text_offset: Vec<usize>,
    },
    Chat {
        content: Vec<ChatToken>,
        refusal: Option<Vec<ChatToken>>,
    },
}

#[derive(Debug, Serialize)]
pub(super) struct ChatToken {
    #[serde(flatten)]
    chosen: ChatLogprob,
    top_logprobs: Vec<ChatLogprob>,
}

#[derive(Debug, Serialize)]
struct ChatLogprob {
    token: String,
    logprob: f32,
    bytes: Option<Vec<u8>>,
}

/// Writes the log-probabilities of one choice, part by part.
#[derive(Debug, Default)]
pub(super) struct LogprobWriter {
    characters: usize,
    /// Bytes of a character that is not complete yet.
    partial: Vec<u8>,
}

impl LogprobWriter {
    /// The part for the next tokens.
    pub(super) fn write(
        &mut self,
        shape: Shape,
        tokenizer: Option<&Tokenizer>,
        tokens: &[Token],
    ) -> Logprobs {
        match shape {
            Shape::Completion => self.completion(tokenizer, tokens),
            Shape::Chat => Logprobs::Chat {
                content: tokens.iter().map(|token| chat_token(tokenizer, token)).collect(),
                refusal: None,
            },
        }
    }

    fn completion(&mut self, tokenizer: Option<&Tokenizer>, tokens: &[Token]) -> Logprobs {
        let top_logprobs = tokens.iter().map(|token| {
            let top = token.top_logprobs.iter().map(|top| (name(tokenizer, top.id), finite(top.logprob)));
            let chosen = (name(tokenizer, token.id), finite(token.logprob()));
            top.chain([chosen]).collect()
        });
        Logprobs::Completion {
            top_logprobs: top_logprobs.collect(),
            tokens: tokens.iter().map(|token| name(tokenizer, token.id)).collect(),
            token_logprobs: tokens.iter().map(|token| finite(token.logprob())).collect(),
            text_offset: tokens.iter().map(|token| self.offset(tokenizer, token.id)).collect(),
        }
    }

    /// Where the token begins; counts its characters.
    fn offset(&mut self, tokenizer: Option<&Tokenizer>, id: u32) -> usize {
        let offset = self.characters;
        let Some(tokenizer) = tokenizer.filter(|tokenizer| !tokenizer.is_special(id)) else {
            return offset;
        };
        self.partial.extend(tokenizer.token_bytes(id));
        let complete = match std::str::from_utf8(&self.partial) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.partial.len(),
        };
        let bytes: Vec<u8> = self.partial.drain(..complete).collect();
        self.characters += String::from_utf8_lossy(&bytes).chars().count();
        offset
    }
}

fn chat_token(tokenizer: Option<&Tokenizer>, token: &Token) -> ChatToken {
    let entry = |id, logprob| ChatLogprob {
        token: name(tokenizer, id),
        logprob: finite(logprob),
        bytes: tokenizer.map(|tokenizer| tokenizer.token_bytes(id)),
    };
    ChatToken {
        chosen: entry(token.id, token.logprob()),
        top_logprobs: token.top_logprobs.iter().map(|top| entry(top.id, top.logprob)).collect(),
    }
}

/// A token's text; its bytes in hexadecimal where they are only part of a character, so that names stay distinct.
fn name(tokenizer: Option<&Tokenizer>, id: u32) -> String {
    let Some(tokenizer) = tokenizer else {
        return format!("token_id:{id}");
    };
    String::from_utf8(tokenizer.token_bytes(id)).unwrap_or_else(|error| {
        error.as_bytes().iter().fold("bytes:".to_owned(), |mut name, byte| {
            write!(name, "\\x{byte:02x}").expect("a string takes any text");
            name
        })
    })
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { IMPOSSIBLE }
}
