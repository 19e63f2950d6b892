//! The OpenAI-compatible HTTP front: reads requests strictly, shapes answers. Generation itself is elsewhere.

mod answer;
mod body;
mod chat;
mod completions;
mod error;
mod logprobs;
mod models;
mod options;
mod policy;
mod probes;
mod request;
mod response;
mod stream;
mod strict;
mod tokens;

#[cfg(test)]
mod request_tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::generation::Generator;
use crate::registry::Registry;
use error::ApiError;

/// What the handlers share.
pub(crate) struct App {
    registry: Arc<Registry>,
    generator: Arc<Generator>,
    metrics: PrometheusHandle,
    /// Seconds since 1970.
    started: u64,
}

/// All routes of the HTTP front.
pub(crate) fn router(
    registry: Arc<Registry>,
    generator: Arc<Generator>,
    metrics: PrometheusHandle,
) -> Router {
    let app = App { registry, generator, metrics, started: answer::unix_seconds() };
    Router::new()
        .route("/v1/completions", post(completions::completions))
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/tokenizer_info", get(tokens::info))
        .route("/live", get(probes::live))
        .route("/ready", get(probes::ready))
        .route("/health", get(probes::ready))
        .route("/metrics", get(probes::metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(body::BODY_LIMIT_BYTES))
        .with_state(Arc::new(app))
}

async fn not_found(uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", format!("there is no {}", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
