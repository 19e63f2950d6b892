//! Errors as OpenAI's clients know them, and the one place where statuses are chosen.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::generation::GenerationError;
use crate::metrics;

/// When a busy server may have room again.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// An error told to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: String,
    pub(super) param: Option<String>,
    pub(super) code: &'static str,
    /// When the same may be accepted.
    pub(super) retry_after: Option<Duration>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
    code: &'static str,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code, retry_after: None }
    }

    /// The request's field `param` is at fault.
    pub(super) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request", message);
        Self { param: Some(param.into()), ..error }
    }

    /// A field that other servers know and this one does not act upon.
    pub(super) fn not_supported(param: impl Into<String>, remedy: &str) -> Self {
        let param = param.into();
        Self::invalid(param.clone(), format!("{param} is not supported: {remedy}"))
    }

    /// The error as JSON text, for the middle of a stream. Counts it.
    pub(super) fn to_json(&self) -> String {
        metrics::failure(self.code);
        serde_json::to_string(&self.body()).expect("text and numbers are JSON")
    }

    fn body(&self) -> Body<'_> {
        let r#type = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        Body {
            error: Inner { message: &self.message, r#type, param: self.param.as_deref(), code: self.code },
        }
    }
}

impl From<GenerationError> for ApiError {
    fn from(error: GenerationError) -> Self {
        let status = match &error {
            GenerationError::Invalid { .. } => StatusCode::BAD_REQUEST,
            GenerationError::UnknownModel { .. } => StatusCode::NOT_FOUND,
            GenerationError::Busy { .. } | GenerationError::Limited { .. } => StatusCode::TOO_MANY_REQUESTS,
            GenerationError::Unavailable { .. } | GenerationError::WorkerLost { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            GenerationError::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let plain = Self::new(status, error.code(), error.to_string());
        let retry_after = match &error {
            GenerationError::Limited { retry_after, .. } => Some(*retry_after),
            GenerationError::Busy { .. } => Some(BUSY_WAIT),
            _ => None,
        };
        let param = match error {
            GenerationError::Invalid { field, .. } => field,
            GenerationError::UnknownModel { .. } => Some("model".into()),
            _ => None,
        };
        Self { param, retry_after, ..plain }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        metrics::failure(self.code);
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(retry_after) = self.retry_after {
            let seconds = retry_after.as_secs_f64().ceil().max(1.0) as u64;
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
