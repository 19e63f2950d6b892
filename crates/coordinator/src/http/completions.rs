//! `POST /v1/completions`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use tokio::time::Instant;

use super::App;
use super::answer::{Job, answer};
use super::body::StrictJson;
use super::error::ApiError;
use super::options::{LOGPROBS_LIMIT, Options, options, refuse_foreign};
use super::request::{Body, Logprobs, Prompts};
use super::response::Shape;
use crate::generation::Prompt;
use crate::security::Caller;

pub(super) async fn completions(
    State(app): State<Arc<App>>,
    caller: Caller,
    StrictJson(body): StrictJson<Body>,
) -> Result<Response, ApiError> {
    let received = Instant::now();
    let (prompts, options) = validate(body)?;
    let job = Job { shape: Shape::Completion, prompts, options, received, caller };
    Ok(answer(&app, job).await?)
}

pub(super) fn validate(mut body: Body) -> Result<(Vec<Prompt>, Options), ApiError> {
    refuse_chat_fields(&body)?;
    if body.echo == Some(true) {
        return Err(ApiError::not_supported("echo", "leave it out or send false"));
    }
    if body.best_of.is_some_and(|best_of| best_of != 1) {
        return Err(ApiError::not_supported("best_of", "leave it out or send 1"));
    }
    if body.suffix.as_ref().is_some_and(|suffix| suffix != "") {
        return Err(ApiError::not_supported("suffix", "leave it out"));
    }
    let logprobs = match body.logprobs {
        None => None,
        Some(Logprobs::Count(count)) if count <= LOGPROBS_LIMIT => Some(count),
        Some(_) => {
            let message = format!("logprobs must be a number from 0 to {LOGPROBS_LIMIT}");
            return Err(ApiError::invalid("logprobs", message));
        }
    };
    let prompts = match body.prompt.take() {
        None => return Err(ApiError::invalid("prompt", "prompt is missing")),
        Some(Prompts::Text(text)) => vec![Prompt::Text(text)],
        Some(Prompts::Texts(texts)) => texts.into_iter().map(Prompt::Text).collect(),
        Some(Prompts::TokenIds(ids)) => vec![Prompt::TokenIds(ids)],
        Some(Prompts::ManyTokenIds(many)) => many.into_iter().map(Prompt::TokenIds).collect(),
    };
    Ok((prompts, options(&mut body, logprobs)?))
}

fn refuse_chat_fields(body: &Body) -> Result<(), ApiError> {
    let of_chat = [
        ("messages", body.messages.is_some()),
        ("max_completion_tokens", body.max_completion_tokens.is_some()),
        ("top_logprobs", body.top_logprobs.is_some()),
        ("tools", body.tools.is_some()),
        ("tool_choice", body.tool_choice.is_some()),
        ("parallel_tool_calls", body.parallel_tool_calls.is_some()),
        ("functions", body.functions.is_some()),
        ("function_call", body.function_call.is_some()),
        ("response_format", body.response_format.is_some()),
    ];
    refuse_foreign(&of_chat, "/v1/chat/completions")
}
