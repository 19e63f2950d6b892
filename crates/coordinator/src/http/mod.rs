//! The OpenAI-compatible HTTP front: reads requests strictly, shapes answers. Generation itself is elsewhere.

mod answer;
mod body;
mod chat;
mod completions;
mod door;
mod error;
mod logprobs;
mod models;
mod options;
mod policy;
mod probes;
mod request;
mod response;
mod server;
mod stream;
mod strict;
mod tokens;

#[cfg(test)]
mod request_tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::generation::Generator;
use crate::registry::Registry;
use crate::security::Keyring;
use error::ApiError;

pub(crate) use server::serve;

/// What the handlers share.
pub(crate) struct App {
    registry: Arc<Registry>,
    generator: Arc<Generator>,
    metrics: PrometheusHandle,
    body_limits: BodyLimits,
    /// Seconds since 1970.
    started: u64,
}

/// How large a body may be, and how long it may take to come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    pub(crate) bytes: usize,
    pub(crate) time: Duration,
}

/// All routes of the HTTP front. With a keyring, all but those that watch the server need a key.
pub(crate) fn router(
    registry: Arc<Registry>,
    generator: Arc<Generator>,
    metrics: PrometheusHandle,
    keyring: Option<Arc<Keyring>>,
    body_limits: BodyLimits,
) -> Router {
    let app = App { registry, generator, metrics, body_limits, started: answer::unix_seconds() };
    Router::new()
        .route("/v1/completions", post(completions::completions))
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/tokenizer_info", get(tokens::info))
        .route_layer(from_fn_with_state(keyring, door::guard))
        .route("/live", get(probes::live))
        .route("/ready", get(probes::ready))
        .route("/health", get(probes::ready))
        .route("/metrics", get(probes::metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(body_limits.bytes))
        .with_state(Arc::new(app))
}

async fn not_found(uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", format!("there is no {}", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
