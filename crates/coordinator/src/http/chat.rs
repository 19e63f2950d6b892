//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::App;
use super::answer::{Job, answer};
use super::body::StrictJson;
use super::error::ApiError;
use super::options::{LOGPROBS_LIMIT, Options, options, present, refuse_foreign};
use super::request::{Body, Content, Logprobs, Message};
use super::response::Shape;
use super::strict::Object;
use crate::generation::Prompt;
use crate::security::Caller;

pub(super) async fn chat(
    State(app): State<Arc<App>>,
    caller: Caller,
    StrictJson(body): StrictJson<Body>,
) -> Result<Response, ApiError> {
    let received = Instant::now();
    let newer = body.max_completion_tokens.is_some();
    let (prompt, options) = validate(body)?;
    let job = Job { shape: Shape::Chat, prompts: vec![prompt], options, received, caller };
    let answer = answer(&app, job).await;
    answer.map_err(|error| error.rename_field(|field| rename(field, newer)).into())
}

/// The field, as this endpoint names it. `newer`: the request said `max_completion_tokens`.
fn rename(field: String, newer: bool) -> String {
    match field.as_str() {
        "prompt" => "messages".into(),
        "max_tokens" if newer => "max_completion_tokens".into(),
        "logprobs" => "top_logprobs".into(),
        _ => field,
    }
}

pub(super) fn validate(mut body: Body) -> Result<(Prompt, Options), ApiError> {
    refuse_unsupported(&body)?;
    body.max_tokens = match (body.max_tokens, body.max_completion_tokens) {
        (Some(older), Some(newer)) if older != newer => {
            let message =
                format!("max_tokens {older} and max_completion_tokens {newer} differ: send one of them");
            return Err(ApiError::invalid("max_completion_tokens", message));
        }
        (older, newer) => newer.or(older),
    };
    let logprobs = logprobs(&body)?;
    let messages = body.messages.take().unwrap_or_default();
    let turns = messages.into_iter().enumerate().map(|(index, Object(message))| turn(index, message));
    let prompt = Prompt::chat(turns.collect::<Result<_, _>>()?)?;
    Ok((prompt, options(&mut body, logprobs)?))
}

fn logprobs(body: &Body) -> Result<Option<u32>, ApiError> {
    match (&body.logprobs, body.top_logprobs) {
        (Some(Logprobs::Count(_)), _) => Err(ApiError::invalid("logprobs", "logprobs must be true or false")),
        (Some(Logprobs::Flag(true)), Some(count)) if count > LOGPROBS_LIMIT => {
            let message = format!("top_logprobs {count} is out of range: use 0 to {LOGPROBS_LIMIT}");
            Err(ApiError::invalid("top_logprobs", message))
        }
        (Some(Logprobs::Flag(true)), count) => Ok(Some(count.unwrap_or(0))),
        (_, Some(_)) => Err(ApiError::invalid("top_logprobs", "top_logprobs needs \"logprobs\": true")),
        (_, None) => Ok(None),
    }
}

fn refuse_unsupported(body: &Body) -> Result<(), ApiError> {
    let of_completions = [
        ("prompt", body.prompt.is_some()),
        ("echo", body.echo.is_some()),
        ("best_of", body.best_of.is_some()),
        ("suffix", body.suffix.is_some()),
    ];
    refuse_foreign(&of_completions, "/v1/completions")?;
    // Without tools, these do nothing.
    let does_something = |value: &Option<Value>, nothing: &[Value]| {
        value.as_ref().is_some_and(|value| !nothing.contains(value))
    };
    let choices = [json!("none"), json!("auto")];
    let unsupported = present(&[
        ("tools", does_something(&body.tools, &[json!([])])),
        ("tool_choice", does_something(&body.tool_choice, &choices)),
        ("parallel_tool_calls", does_something(&body.parallel_tool_calls, &[json!(true), json!(false)])),
        ("functions", does_something(&body.functions, &[json!([])])),
        ("function_call", does_something(&body.function_call, &choices)),
    ]);
    if let Some(field) = unsupported {
        return Err(ApiError::not_supported(field, "leave it out"));
    }
    if does_something(&body.response_format, &[json!({"type": "text"})]) {
        return Err(ApiError::not_supported("response_format", "leave it out or send {\"type\": \"text\"}"));
    }
    Ok(())
}

/// Role and content.
fn turn(index: usize, message: Message) -> Result<(String, String), ApiError> {
    let path = format!("messages[{index}]");
    let unsupported = present(&[
        ("name", message.name.is_some()),
        ("refusal", message.refusal.is_some()),
        ("audio", message.audio.is_some()),
        ("function_call", message.function_call.is_some()),
        ("tool_calls", message.tool_calls.as_ref().is_some_and(|calls| *calls != json!([]))),
    ]);
    if let Some(field) = unsupported {
        return Err(ApiError::not_supported(format!("{path}.{field}"), "leave it out"));
    }
    let content = match message.content {
        None => {
            return Err(ApiError::invalid(format!("{path}.content"), format!("{path}.content is missing")));
        }
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => {
            let texts = parts.iter().enumerate().map(|(part, value)| text(&path, part, value));
            texts.collect::<Result<Vec<_>, _>>()?.concat()
        }
    };
    Ok((message.role, content))
}

/// The text of one part.
fn text<'a>(path: &str, index: usize, part: &'a Value) -> Result<&'a str, ApiError> {
    let path = format!("{path}.content[{index}]");
    let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
    if kind != "text" {
        let message = format!("{path}.type '{kind}' is not supported: send parts of type 'text'");
        return Err(ApiError::invalid(format!("{path}.type"), message));
    }
    let fields = part.as_object().into_iter().flatten();
    if let Some((field, _)) = fields.into_iter().find(|(field, _)| !matches!(field.as_str(), "type" | "text"))
    {
        let field = format!("{path}.{field}");
        return Err(ApiError::invalid(&field, format!("unknown field '{field}': leave it out")));
    }
    part.get("text")
        .and_then(Value::as_str)
        .ok_or_else(|| ApiError::invalid(format!("{path}.text"), format!("{path}.text: expected a string")))
}
