//! For those who watch the server: `/live`, `/ready`, `/health`, `/metrics`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::App;
use crate::metrics::render_workers;

/// The process answers.
pub(super) async fn live() -> Json<Value> {
    Json(json!({"status": "live"}))
}

/// A worker takes requests, as its heartbeats tell.
pub(super) async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    match app.registry.readiness() {
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
