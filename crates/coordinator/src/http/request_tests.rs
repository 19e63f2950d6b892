//! What each bad request is told: one row, one request.

use super::body::parse;
use super::error::ApiError;
use super::request::Body;
use super::{chat, completions};

/// JSON, param (empty for none), part of the message.
type Row = (&'static str, &'static str, &'static str);

const COMPLETIONS: &[Row] = &[
    ("{", "", "the body is not JSON: the text ends too early at line 1 column 1"),
    (r#"{"prompt": "a"} x"#, "", "not JSON"),
    ("[]", "", "must be a JSON object"),
    ("{}", "prompt", "prompt is missing"),
    (r#"{"prompt": null}"#, "prompt", "prompt is missing"),
    (r#"{"prompt": "a", "best": 1}"#, "best", "unknown field 'best': leave it out"),
    (r#"{"prompt": "a", "colour": 1, "best": 1}"#, "best", "unknown fields 'best', 'colour': leave them out"),
    (r#"{"prompt": "a", "prompt": "b"}"#, "prompt", "prompt is there twice: keep one"),
    (r#"{"prompt": 7}"#, "prompt", "a list of token ids"),
    (r#"{"prompt": [1, "a"]}"#, "prompt", "a list of strings"),
    (r#"{"prompt": [-1]}"#, "prompt", "a list of token ids"),
    (
        r#"{"prompt": "a", "max_tokens": "8"}"#,
        "max_tokens",
        "max_tokens: expected a whole number from 0 to 4294967295, not \"8\"",
    ),
    (r#"{"prompt": "a", "max_tokens": -8}"#, "max_tokens", "from 0 to 4294967295, not -8"),
    (
        r#"{"prompt": "a", "temperature": "hot"}"#,
        "temperature",
        "temperature: expected a number, not \"hot\"",
    ),
    (
        r#"{"prompt": "a", "logit_bias": {"x": 1}}"#,
        "logit_bias",
        "logit_bias: expected every name to be a whole number in quotes",
    ),
    (r#"{"prompt": "a", "stop": 3}"#, "stop", "expected a string or a list of strings"),
    (r#"{"prompt": "a", "echo": true}"#, "echo", "not supported"),
    (r#"{"prompt": "a", "best_of": 2}"#, "best_of", "not supported"),
    (r#"{"prompt": "a", "suffix": "b"}"#, "suffix", "not supported"),
    (r#"{"prompt": "a", "logprobs": 21}"#, "logprobs", "from 0 to 20"),
    (r#"{"prompt": "a", "logprobs": true}"#, "logprobs", "from 0 to 20"),
    (r#"{"prompt": "a", "logprobs": "all"}"#, "logprobs", "expected a number"),
    (r#"{"prompt": "a", "messages": []}"#, "messages", "belongs to /v1/chat/completions"),
    (r#"{"prompt": "a", "stream_options": {}}"#, "stream_options", "stream"),
    (
        r#"{"prompt": "a", "stream": true, "stream_options": {"usage": true}}"#,
        "stream_options.usage",
        "unknown field",
    ),
    (
        r#"{"prompt": "a", "stream": true, "stream_options": {"continuous_usage_stats": true}}"#,
        "stream_options.continuous_usage_stats",
        "include_usage",
    ),
    (r#"{"prompt": "a", "depth": {"fixd": 8}}"#, "depth.fixd", "unknown field 'depth.fixd': leave it out"),
    (r#"{"prompt": "a", "depth": {"fixed": 8, "mood": 8}}"#, "depth.mood", "unknown field 'depth.mood'"),
    (r#"{"prompt": "a", "depth": 8}"#, "depth", "an object with exactly one of fixed and adaptive, not 8"),
    (r#"{"prompt": "a", "depth": [8, null]}"#, "depth", "exactly one of fixed and adaptive, not a list"),
    (r#"{"prompt": "a", "depth": {}}"#, "depth", "depth: use exactly one of fixed and adaptive"),
    (
        r#"{"prompt": "a", "depth": {"fixed": 8, "adaptive": {"criterion": "kl"}}}"#,
        "depth",
        "depth: use exactly one of fixed and adaptive",
    ),
    (r#"{"prompt": "a", "depth": {"fixed": "8"}}"#, "depth.fixed", "expected a whole number"),
    (r#"{"prompt": "a", "depth": {"adaptive": "kl"}}"#, "depth.adaptive", "an object with a criterion"),
    (r#"{"prompt": "a", "depth": {"adaptive": {}}}"#, "depth.adaptive.criterion", "missing"),
    (
        r#"{"prompt": "a", "depth": {"adaptive": {"criterion": "kl", "least": 1}}}"#,
        "depth.adaptive.least",
        "unknown field",
    ),
    (
        r#"{"prompt": "a", "depth": {"adaptive": {"criterion": "guess"}}}"#,
        "depth.adaptive.criterion",
        "'guess' is unknown: use one of latent-diff, cosine, ",
    ),
    (r#"{"prompt": "a", "depth": {"fixed": 8}, "reasoning_effort": "low"}"#, "depth", "exclude each other"),
    (
        r#"{"prompt": "a", "kv": "ring"}"#,
        "kv",
        r#"kv: expected "full", {"ring": k} or {"anchor": a}, not "ring""#,
    ),
    (r#"{"prompt": "a", "kv": 4}"#, "kv", r#"{"anchor": a}, not 4"#),
    (r#"{"prompt": "a", "kv": {}}"#, "kv", "kv: use exactly one of ring and anchor"),
    (r#"{"prompt": "a", "kv": {"ring": 1, "anchor": 1}}"#, "kv", "use exactly one of ring and anchor"),
    (r#"{"prompt": "a", "kv": {"ring": 1, "size": 1}}"#, "kv.size", "unknown field 'kv.size'"),
    (r#"{"prompt": "a", "kv": {"full": {}}}"#, "kv.full", "unknown field 'kv.full'"),
    (r#"{"prompt": "a", "kv": {"ring": "4"}}"#, "kv.ring", "expected a whole number"),
    (
        r#"{"prompt": "a", "seed": -1}"#,
        "seed",
        "expected a whole number from 0 to 18446744073709551615, not -1",
    ),
    (r#"{"prompt": "a", "priority": 0.5}"#, "priority", "from -2147483648 to 2147483647, not 0.5"),
    (r#"{"prompt": "a", "timeout_ms": -1}"#, "timeout_ms", "expected a whole number"),
];

const CHAT: &[Row] = &[
    ("{}", "messages", "messages: the list is missing"),
    (r#"{"messages": []}"#, "messages", "at least one"),
    (r#"{"messages": [["user", "a"]]}"#, "messages[0]", "an object with role and content, not a list"),
    (
        r#"{"messages": [{"role": "user", "content": "a"}], "prompt": "b", "echo": true}"#,
        "prompt",
        "unknown fields 'prompt', 'echo': they belong to /v1/completions",
    ),
    (
        r#"{"messages": [{"role": "tool", "content": "a"}]}"#,
        "messages[0].role",
        "messages[0].role: 'tool' is not a role",
    ),
    (r#"{"messages": [{"role": "user"}]}"#, "messages[0].content", "missing"),
    (r#"{"messages": [{"content": "a"}]}"#, "messages[0].role", "missing"),
    (
        r#"{"messages": [{"role": "user", "content": 3}]}"#,
        "messages[0].content",
        "expected a string or a list",
    ),
    (
        r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]}"#,
        "messages[0].content[1].type",
        "'image_url' is not supported",
    ),
    (
        r#"{"messages": [{"role": "user", "content": [{"type": "text"}]}]}"#,
        "messages[0].content[0].text",
        "expected a string",
    ),
    (
        r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "b": 1}]}]}"#,
        "messages[0].content[0].b",
        "unknown field",
    ),
    (r#"{"messages": [{"role": "user", "content": "a", "mood": 1}]}"#, "messages[0].mood", "unknown field"),
    (
        r#"{"messages": [{"role": "assistant", "content": "a", "tool_calls": [{}]}]}"#,
        "messages[0].tool_calls",
        "not supported",
    ),
    (
        r#"{"messages": [{"role": "user", "content": "a"}], "prompt": "b"}"#,
        "prompt",
        "belongs to /v1/completions",
    ),
    (r#"{"messages": [{"role": "user", "content": "a"}], "tools": [{}]}"#, "tools", "not supported"),
    (r#"{"messages": [{"role": "user", "content": "a"}], "functions": [{}]}"#, "functions", "not supported"),
    (
        r#"{"messages": [{"role": "user", "content": "a"}], "tool_choice": "required"}"#,
        "tool_choice",
        "not supported",
    ),
    (
        r#"{"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "json_object"}}"#,
        "response_format",
        "not supported",
    ),
    (
        r#"{"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "max_completion_tokens": 2}"#,
        "max_completion_tokens",
        "differ",
    ),
    (r#"{"messages": [{"role": "user", "content": "a"}], "logprobs": 3}"#, "logprobs", "true or false"),
    (r#"{"messages": [{"role": "user", "content": "a"}], "top_logprobs": 3}"#, "top_logprobs", "needs"),
    (
        r#"{"messages": [{"role": "user", "content": "a"}], "logprobs": true, "top_logprobs": 21}"#,
        "top_logprobs",
        "use 0 to 20",
    ),
];

fn check(rows: &[Row], validate: fn(Body) -> Option<ApiError>) {
    for (json, param, part) in rows {
        let error = parse(json.as_bytes()).map_or_else(Some, validate);
        let error = error.unwrap_or_else(|| panic!("accepted: {json}"));
        assert_eq!(error.status, 400, "{json}: {error:?}");
        assert_eq!(error.param.as_deref().unwrap_or_default(), *param, "{json}: {error:?}");
        assert!(error.message.contains(part), "{json}: {error:?}");
        let rust = ["u32", "u64", "i32", "f32", "f64", "struct ", "enum ", "variant", "unit", "`"];
        assert!(!rust.iter().any(|word| error.message.contains(word)), "{json}: {error:?}");
    }
}

#[test]
fn every_bad_completion_request_is_told_its_field() {
    check(COMPLETIONS, |body| completions::validate(body).err());
}

#[test]
fn every_bad_chat_request_is_told_its_field() {
    check(CHAT, |body| chat::validate(body).err());
}

#[test]
fn nulls_and_no_op_values_are_accepted() {
    let body = parse(
        br#"{"model": null, "prompt": [[1, 2], [3]], "max_tokens": null, "stop": null, "echo": false, "best_of": 1,
            "suffix": "", "logprobs": null, "stream": false, "stream_options": null, "depth": null, "tools": null}"#,
    )
    .unwrap();
    let (prompts, options) = completions::validate(body).unwrap();
    assert_eq!(prompts.len(), 2);
    assert_eq!(options.choices, 1);
    assert!(options.stream.is_none());
    let body = parse(
        br#"{"messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            "name": null, "tool_calls": []}], "tools": [], "tool_choice": "auto", "parallel_tool_calls": true,
            "functions": [], "function_call": "none", "response_format": {"type": "text"},
            "max_tokens": 4, "max_completion_tokens": 4}"#,
    )
    .unwrap();
    let (prompt, options) = chat::validate(body).unwrap();
    let expected = crate::text::ChatMessage { role: "system".into(), content: "ab".into() };
    assert_eq!(prompt, crate::generation::Prompt::Chat(vec![expected]));
    assert_eq!(options.parameters.max_tokens, Some(4));
}

#[test]
fn depth_and_kv_reach_the_worker_as_they_were_written() {
    use windlass_proto::v1::{depth_policy, kv_policy};
    let body = parse(
        br#"{"prompt": "a", "depth": {"adaptive": {"criterion": "minp-kl", "threshold": 0.5, "max": 9}},
            "kv": {"ring": 4}, "logit_bias": {"7": -2}, "priority": -3, "timeout_ms": 250}"#,
    )
    .unwrap();
    let parameters = completions::validate(body).unwrap().1.parameters;
    let Some(depth_policy::Policy::Adaptive(depth)) = parameters.depth.unwrap().policy else {
        panic!("not adaptive");
    };
    assert_eq!(depth.criterion(), windlass_proto::v1::ExitCriterion::MinpKl);
    assert_eq!((depth.threshold, depth.min, depth.max, depth.every), (Some(0.5), None, Some(9), None));
    assert_eq!(parameters.kv.unwrap().policy, Some(kv_policy::Policy::Ring(4)));
    assert_eq!((parameters.priority, parameters.timeout_ms), (Some(-3), Some(250)));
    assert_eq!(parameters.sampling.unwrap().logit_bias[&7], -2.0);
    let anchor = completions::validate(parse(br#"{"prompt": "a", "kv": {"anchor": 2}}"#).unwrap());
    let anchor = anchor.unwrap().1.parameters.kv.unwrap().policy;
    assert_eq!(anchor, Some(kv_policy::Policy::Anchor(2)));
}
