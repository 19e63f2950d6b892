//! For those who watch the server: `/live`, `/ready`, `/health`, `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::App;
use crate::metrics::render_workers;

const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The process answers.
pub(super) async fn live() -> Json<Value> {
    Json(json!({"status": "live"}))
}

/// A worker takes requests, and its engine answered just now.
pub(super) async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    match app.registry.probe(PROBE_TIMEOUT).await {
        Ok(()) => (StatusCode::OK, Json(json!({"status": "ready"}))),
        Err(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "unready", "reason": reason})))
        }
    }
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let page = app.metrics.render() + &render_workers(&app.registry.workers());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page)
}
