//! `POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`, by which evaluation tools count and cut prompts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::App;
use super::body::StrictJson;
use super::error::ApiError;
use crate::generation::{GenerationError, with_text};
use crate::registry::Model;
use crate::text::{Tokenizer, TokenizerInfo};

/// About as much text as a token stands for.
const TOKEN_BYTES: usize = 4;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenizeBody {
    model: Option<String>,
    prompt: String,
    add_special_tokens: Option<bool>,
}

#[derive(Debug, Serialize)]
pub(super) struct Tokens {
    count: usize,
    max_model_len: u32,
    tokens: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DetokenizeBody {
    model: Option<String>,
    tokens: Vec<u32>,
}

#[derive(Debug, Serialize)]
pub(super) struct Text {
    prompt: String,
}

/// Token ids of a text, as of a prompt unless special tokens are declined.
pub(super) async fn tokenize(
    State(app): State<Arc<App>>,
    StrictJson(body): StrictJson<TokenizeBody>,
) -> Result<Json<Tokens>, ApiError> {
    let model = app.generator.model(&body.model.unwrap_or_default())?;
    let special = body.add_special_tokens != Some(false);
    let (tokenizer, prompt) = (tokenizer(&model, "prompt")?, body.prompt);
    let encoded = with_text(prompt.len(), move || tokenizer.encode(&prompt, special)).await?;
    let tokens = encoded.map_err(GenerationError::from)?;
    Ok(Json(Tokens { count: tokens.len(), max_model_len: model.info.context_length, tokens }))
}

/// The text of token ids, special tokens by their names.
pub(super) async fn detokenize(
    State(app): State<Arc<App>>,
    StrictJson(body): StrictJson<DetokenizeBody>,
) -> Result<Json<Text>, ApiError> {
    let model = app.generator.model(&body.model.unwrap_or_default())?;
    let tokenizer = tokenizer(&model, "tokens")?;
    let vocabulary = model.info.vocabulary;
    if let Some(token) = body.tokens.iter().find(|token| **token >= vocabulary) {
        let message = format!("token {token} is not in the vocabulary: use ids below {vocabulary}");
        return Err(GenerationError::invalid("tokens", message).into());
    }
    let bytes = TOKEN_BYTES * body.tokens.len();
    let decoded = with_text(bytes, move || tokenizer.decode_with_special(&body.tokens)).await?;
    Ok(Json(Text { prompt: decoded.map_err(GenerationError::from)? }))
}

/// Special tokens and chat template of the only model served.
pub(super) async fn info(State(app): State<Arc<App>>) -> Result<Json<TokenizerInfo>, ApiError> {
    let model = app.generator.model("")?;
    tokenizer(&model, "model")?;
    Ok(Json(model.tokenizer_info.clone()))
}

fn tokenizer(model: &Model, field: &str) -> Result<Arc<Tokenizer>, GenerationError> {
    model.tokenizer.clone().ok_or_else(|| {
        GenerationError::invalid(field, format!("model '{}' has no tokenizer", model.info.name))
    })
}
