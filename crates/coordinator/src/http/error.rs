//! Errors as OpenAI's clients know them, and the one place where statuses are chosen.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::generation::GenerationError;
use crate::metrics;

/// An error told to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: String,
    pub(super) param: Option<String>,
    pub(super) code: &'static str,
    /// When it is worth another try.
    retry_after: Option<Duration>,
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
            GenerationError::Late { .. } => StatusCode::GATEWAY_TIMEOUT,
            GenerationError::Unavailable { .. } | GenerationError::WorkerLost { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            GenerationError::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let plain = Self::new(status, error.code(), error.to_string());
        match error {
            GenerationError::Invalid { field, .. } => Self { param: field, ..plain },
            GenerationError::UnknownModel { .. } => Self { param: Some("model".into()), ..plain },
            GenerationError::Busy { retry_after, .. } | GenerationError::Limited { retry_after, .. } => {
                Self { retry_after: Some(retry_after), ..plain }
            }
            _ => plain,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        metrics::failure(self.code);
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(retry_after) = self.retry_after {
            // Whole seconds only, and none too early.
            let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}
