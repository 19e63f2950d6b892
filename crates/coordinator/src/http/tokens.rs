//! `POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`, by which evaluation tools count and cut prompts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::App;
use super::body::StrictJson;
use super::error::ApiError;
use crate::generation::GenerationError;
use crate::registry::Model;
use crate::text::{Tokenizer, TokenizerInfo};

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
    let tokens = app.generator.text_ids(&model, body.prompt, special).await?;
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
    let prompt = tokenizer.decode_with_special(&body.tokens).map_err(GenerationError::from)?;
    Ok(Json(Text { prompt }))
}

/// Special tokens and chat template of the only model served.
pub(super) async fn info(State(app): State<Arc<App>>) -> Result<Json<TokenizerInfo>, ApiError> {
    let model = app.generator.model("")?;
    tokenizer(&model, "model")?;
    Ok(Json(model.tokenizer_info.clone()))
}

fn tokenizer<'a>(model: &'a Model, field: &str) -> Result<&'a Tokenizer, GenerationError> {
    model.tokenizer.as_deref().ok_or_else(|| {
        GenerationError::invalid(field, format!("model '{}' has no tokenizer", model.info.name))
    })
}
