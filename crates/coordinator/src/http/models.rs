//! `GET /v1/models` and `GET /v1/models/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use windlass_proto::v1::ModelInfo;

use super::App;
use super::error::ApiError;

#[derive(Debug, Serialize)]
pub(super) struct ModelList {
    object: &'static str,
    data: Vec<ModelBody>,
}

#[derive(Debug, Serialize)]
pub(super) struct ModelBody {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    max_model_len: u32,
    parameters: u64,
    default_depth: u32,
    max_depth: u32,
    efforts: Vec<String>,
    default_effort: String,
    /// Equal where the same request gives the same answer.
    fingerprint: String,
    /// Answers are drawn, not computed.
    simulated: bool,
}

pub(super) async fn list(State(app): State<Arc<App>>) -> Json<ModelList> {
    let data =
        app.registry.served_models().values().map(|model| body(model.info.clone(), app.started)).collect();
    Json(ModelList { object: "list", data })
}

pub(super) async fn one(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ModelBody>, ApiError> {
    let Path(id) = id.map_err(|rejection| {
        let message = format!("the path cannot be read: {}", rejection.body_text());
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    })?;
    let model = app.generator.model(&id)?;
    Ok(Json(body(model.info.clone(), app.started)))
}

fn body(info: ModelInfo, created: u64) -> ModelBody {
    ModelBody {
        id: info.name,
        object: "model",
        created,
        owned_by: "windlass",
        max_model_len: info.context_length,
        parameters: info.parameters,
        default_depth: info.default_depth,
        max_depth: info.max_depth,
        efforts: info.efforts.into_iter().map(|effort| effort.name).collect(),
        default_effort: info.default_effort,
        fingerprint: info.fingerprint,
        simulated: info.simulated,
    }
}
