//! One item as a line of JSON, as files of items have it.

use std::collections::HashMap;

use serde::Deserialize;
use windlass_proto::v1::{Chat, ChatMessage, GenerationParameters, JobItem, Sampling, TokenIds, job_item};
use windlass_wording::plain;

use crate::error::JobsError;
use crate::policy::{Depth, Kv};

/// What some editors begin files of UTF-8 with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An item: exactly one of `prompt` and `messages`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<String>,
    prompt: Option<Prompt>,
    messages: Option<Vec<Message>>,
    parameters: Option<Parameters>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of token ids")]
enum Prompt {
    Text(String),
    TokenIds(Vec<u32>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    role: String,
    content: String,
}

/// What a request over HTTP has beside its prompt, as far as items can have it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    max_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    logit_bias: Option<HashMap<u32, f32>>,
    seed: Option<u64>,
    stop: Option<Stop>,
    stop_token_ids: Option<Vec<u32>>,
    ignore_eos: Option<bool>,
    reasoning_effort: Option<String>,
    depth: Option<Depth>,
    kv: Option<Kv>,
    latent_seed: Option<u64>,
    init_scale: Option<f32>,
    priority: Option<i32>,
    timeout_ms: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum Stop {
    One(String),
    Many(Vec<String>),
}

/// Reads `{"id"?, "prompt" | "messages", "parameters"?}`, with parameters as in requests over HTTP. An error's field is
/// `line` where the line as a whole is at fault.
pub fn parse_line(line: &[u8]) -> Result<JobItem, JobsError> {
    if line.starts_with(BYTE_ORDER_MARK) {
        let message = "it begins with a byte order mark: save the file as UTF-8 without one";
        return Err(JobsError::invalid("line", message));
    }
    if line.trim_ascii_start().starts_with(b"[") {
        let message =
            "it is a list: write each item as an object on a line of its own, without commas between";
        return Err(JobsError::invalid("line", message));
    }
    let mut json = serde_json::Deserializer::from_slice(line);
    let line: Line = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        // The path ends unknown where the text breaks off.
        let path = error.path().to_string();
        let field = match path.trim_end_matches('?').trim_matches('.') {
            "" => "line",
            field => field,
        };
        JobsError::invalid(field, reason(error.inner()))
    })?;
    json.end().map_err(|error| JobsError::invalid("line", reason(&error)))?;
    let prompt = match (line.prompt, line.messages) {
        (Some(Prompt::Text(text)), None) => job_item::Prompt::Text(text),
        (Some(Prompt::TokenIds(ids)), None) => job_item::Prompt::TokenIds(TokenIds { ids }),
        (None, Some(messages)) => {
            let message = |Message { role, content }| ChatMessage { role, content };
            job_item::Prompt::Chat(Chat { messages: messages.into_iter().map(message).collect() })
        }
        (None, None) => return Err(JobsError::invalid("prompt", "it is missing: send prompt or messages")),
        (Some(_), Some(_)) => {
            return Err(JobsError::invalid("prompt", "messages is there too: send one of the two"));
        }
    };
    let mut item = JobItem { id: line.id.unwrap_or_default(), prompt: Some(prompt), ..JobItem::default() };
    if let Some(mut parameters) = line.parameters {
        item.stop = match parameters.stop.take() {
            None => Vec::new(),
            Some(Stop::One(stop)) => vec![stop],
            Some(Stop::Many(stop)) => stop,
        };
        item.parameters = Some(parameters.into());
    }
    Ok(item)
}

/// What is wrong, without a place: a line of the file is place enough.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    plain(text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason))
}

impl From<Parameters> for GenerationParameters {
    fn from(parameters: Parameters) -> Self {
        Self {
            max_tokens: parameters.max_tokens,
            depth: parameters.depth.map(Into::into),
            effort: parameters.reasoning_effort,
            kv: parameters.kv.map(Into::into),
            sampling: Some(Sampling {
                temperature: parameters.temperature,
                top_k: parameters.top_k,
                top_p: parameters.top_p,
                min_p: parameters.min_p,
                repetition_penalty: parameters.repetition_penalty,
                presence_penalty: parameters.presence_penalty,
                frequency_penalty: parameters.frequency_penalty,
                logit_bias: parameters.logit_bias.unwrap_or_default(),
                seed: parameters.seed,
            }),
            stop_token_ids: parameters.stop_token_ids.unwrap_or_default(),
            ignore_eos: parameters.ignore_eos == Some(true),
            logprobs: None,
            exit_values: false,
            latent_seed: parameters.latent_seed,
            init_scale: parameters.init_scale,
            priority: parameters.priority,
            timeout_ms: parameters.timeout_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_proto::v1::{DepthPolicy, depth_policy};

    #[test]
    fn a_line_says_what_a_request_could() {
        let item = parse_line(
            br#"{"id": "a", "prompt": "7+5=", "parameters": {"max_tokens": 2, "depth": {"fixed": 3},
                "kv": "full", "seed": 9, "stop": "x", "logit_bias": {"5": -1}}}"#,
        )
        .unwrap();
        let parameters = item.parameters.unwrap();
        assert_eq!((item.id.as_str(), item.prompt), ("a", Some(job_item::Prompt::Text("7+5=".into()))));
        assert_eq!((parameters.max_tokens, item.stop), (Some(2), vec!["x".to_owned()]));
        assert_eq!(parameters.depth, Some(DepthPolicy { policy: Some(depth_policy::Policy::Fixed(3)) }));
        assert_eq!(parameters.sampling.unwrap().seed, Some(9));
        let ids = parse_line(br#"{"prompt": [1, 2]}"#).unwrap();
        assert_eq!(ids.prompt, Some(job_item::Prompt::TokenIds(TokenIds { ids: vec![1, 2] })));
        assert_eq!(ids.parameters, None);
        assert!(parse_line(br#"{"messages": [{"role": "user", "content": "x"}]}"#).is_ok());
    }

    #[test]
    fn a_bad_line_is_refused_with_field_and_remedy() {
        let cases: [(&str, &str); 11] = [
            ("\u{feff}{}", "line: it begins with a byte order mark"),
            (r#"["id", "a", null, null]"#, "line: it is a list: write each item as an object"),
            ("{}", "prompt: it is missing: send prompt or messages"),
            (r#"{"prompt": "a", "messages": []}"#, "prompt: messages is there too"),
            (r#"{"prompt": 7}"#, "prompt: expected a string or a list of token ids"),
            (
                r#"{"promt": "a"}"#,
                "promt: unknown field 'promt': use one of id, prompt, messages, parameters",
            ),
            (
                r#"{"prompt": "a", "parameters": {"max_tokens": "2"}}"#,
                "parameters.max_tokens: expected a whole number from 0 to 4294967295, not \"2\"",
            ),
            (
                r#"{"prompt": "a", "parameters": {"n": 2}}"#,
                "parameters.n: unknown field 'n': use one of max_tokens",
            ),
            (r#"{"prompt": "a"} {}"#, "line: something stands behind the end of the JSON"),
            (r#"{"prompt": "a""#, "line: the text ends too early"),
            (r#"no JSON"#, "line: it is no JSON here: write true, false or null in full"),
        ];
        for (line, expected) in cases {
            let message = parse_line(line.as_bytes()).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{line}: {message}");
        }
    }
}
