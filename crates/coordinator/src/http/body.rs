//! Reading a JSON body strictly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header::CONTENT_TYPE};
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::time::timeout;
use windlass_wording::plain;

use super::error::ApiError;
use super::options::unknown;
use super::strict::field_names;
use super::{App, BodyLimits};

/// A JSON body in which every field is known and has the right type.
pub(super) struct StrictJson<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for StrictJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        if !is_json(&request) {
            let message = "the content type must be application/json";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
        }
        let BodyLimits { bytes: limit, time } = app.body_limits;
        let body = timeout(time, Bytes::from_request(request, app)).await.map_err(|_| too_slow(time))?;
        let bytes = body.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let message = format!("the body exceeds {limit} bytes: send less at once");
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
            }
            _ => ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", rejection.body_text()),
        })?;
        parse(&bytes).map(Self)
    }
}

fn too_slow(time: Duration) -> ApiError {
    let message = format!("the body did not come within {} s: send it faster", time.as_secs_f64());
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
}

fn is_json(request: &Request) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"))
}

/// Reads a whole JSON text; the error names the field and what was expected.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(bytes) {
        let message = format!("the body is not JSON: {}", plain(&error.to_string()));
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", message));
    }
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        let message = "the body must be a JSON object";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", message));
    }
    refuse_unknown_fields::<T>(bytes)?;
    let mut json = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut json)
        .map_err(|error| refusal(&error.path().to_string(), error.inner()))
}

/// Names all of the object's own fields that `T` lacks; those further inside are found one by one.
fn refuse_unknown_fields<T: DeserializeOwned>(bytes: &[u8]) -> Result<(), ApiError> {
    let known = field_names::<T>();
    let fields: BTreeMap<String, IgnoredAny> = serde_json::from_slice(bytes).unwrap_or_default();
    let foreign: Vec<_> = fields.into_keys().filter(|field| !known.contains(&field.as_str())).collect();
    let remedy = if foreign.len() == 1 { "leave it out" } else { "leave them out" };
    match foreign.first() {
        None => Ok(()),
        Some(first) => Err(ApiError::invalid(first, format!("{}: {remedy}", unknown(&foreign)))),
    }
}

/// The body is JSON, but not what was expected at `path`.
fn refusal(path: &str, error: &serde_json::Error) -> ApiError {
    // The path ends unknown at a map's key.
    let path = if path == "." { "" } else { path.trim_end_matches(".?") };
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    let inside = |field: &str| {
        let parent = path.strip_suffix(field).unwrap_or(path).trim_end_matches('.');
        if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") }
    };
    let field = |kind: &str| reason.strip_prefix(kind)?.split('`').nth(1).map(inside);
    if let Some(param) = field("unknown field ") {
        return ApiError::invalid(&param, format!("unknown field '{param}': leave it out"));
    }
    if let Some(param) = field("missing field ") {
        return ApiError::invalid(&param, format!("{param} is missing"));
    }
    if let Some(param) = field("duplicate field ") {
        return ApiError::invalid(&param, format!("{param} is there twice: keep one"));
    }
    match path {
        "" => ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", plain(reason)),
        path => ApiError::invalid(path, format!("{path}: {}", plain(reason))),
    }
}
