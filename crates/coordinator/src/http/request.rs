//! The JSON of a request, field by field. An explicit null is an absent field.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::policy::{Depth, Kv};
use super::strict::{Object, Shape};

/// The fields of both generating endpoints. Each endpoint refuses the other's (`completions`, `chat`).
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    pub(super) model: Option<String>,
    pub(super) max_tokens: Option<u32>,
    pub(super) temperature: Option<f32>,
    pub(super) top_p: Option<f32>,
    pub(super) top_k: Option<u32>,
    pub(super) min_p: Option<f32>,
    pub(super) repetition_penalty: Option<f32>,
    pub(super) presence_penalty: Option<f32>,
    pub(super) frequency_penalty: Option<f32>,
    pub(super) logit_bias: Option<HashMap<u32, f32>>,
    pub(super) seed: Option<u64>,
    pub(super) stop: Option<Stop>,
    pub(super) stop_token_ids: Option<Vec<u32>>,
    pub(super) ignore_eos: Option<bool>,
    pub(super) n: Option<u32>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<Object<StreamOptions>>,
    pub(super) logprobs: Option<Logprobs>,
    pub(super) user: Option<String>,
    pub(super) reasoning_effort: Option<String>,
    pub(super) depth: Option<Object<Depth>>,
    pub(super) kv: Option<Kv>,
    pub(super) latent_seed: Option<u64>,
    pub(super) init_scale: Option<f32>,
    pub(super) priority: Option<i32>,
    pub(super) timeout_ms: Option<u32>,
    pub(super) return_depths: Option<bool>,
    pub(super) return_exit_values: Option<bool>,
    pub(super) return_token_ids: Option<bool>,
    // Of /v1/completions.
    pub(super) prompt: Option<Prompts>,
    pub(super) echo: Option<bool>,
    pub(super) best_of: Option<u32>,
    pub(super) suffix: Option<Value>,
    // Of /v1/chat/completions.
    pub(super) messages: Option<Vec<Object<Message>>>,
    pub(super) max_completion_tokens: Option<u32>,
    pub(super) top_logprobs: Option<u32>,
    pub(super) tools: Option<Value>,
    pub(super) tool_choice: Option<Value>,
    pub(super) parallel_tool_calls: Option<Value>,
    pub(super) functions: Option<Value>,
    pub(super) function_call: Option<Value>,
    pub(super) response_format: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub(super) enum Stop {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamOptions {
    pub(super) include_usage: Option<bool>,
    pub(super) continuous_usage_stats: Option<bool>,
}

impl Shape for StreamOptions {
    const SHAPE: &'static str = "an object";
}

/// A number for completions, a flag for chat.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number from 0 to 20 (completions) or true or false (chat)")]
pub(super) enum Logprobs {
    Flag(bool),
    Count(u32),
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a string, a list of strings, a list of token ids or a list of lists of token ids"
)]
pub(super) enum Prompts {
    Text(String),
    TokenIds(Vec<u32>),
    Texts(Vec<String>),
    ManyTokenIds(Vec<Vec<u32>>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Message {
    pub(super) role: String,
    pub(super) content: Option<Content>,
    pub(super) name: Option<Value>,
    pub(super) refusal: Option<Value>,
    pub(super) audio: Option<Value>,
    pub(super) function_call: Option<Value>,
    pub(super) tool_calls: Option<Value>,
}

impl Shape for Message {
    const SHAPE: &'static str = "an object with role and content";
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of parts {\"type\": \"text\", \"text\": ...}")]
pub(super) enum Content {
    Text(String),
    Parts(Vec<Value>),
}
