//! The door of the HTTP front: who comes in, and as whom.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use crate::security::{Caller, Keyring, Unauthorized};

/// Lets in requests that bring a key, before their body is read. Without a keyring everyone comes in.
pub(super) async fn guard(
    State(keyring): State<Option<Arc<Keyring>>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(keyring) = keyring {
        match keyring.caller(request.headers()) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
            }
            Err(error) => return refusal(error),
        }
    }
    next.run(request).await
}

fn refusal(error: Unauthorized) -> Response {
    let error = ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", error.to_string());
    let mut response = error.into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_else(Self::anyone))
    }
}
