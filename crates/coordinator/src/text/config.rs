//! What of `tokenizer_config.json` matters here. Its many other keys belong to other programs.

use serde::{Deserialize, Serialize};
use windlass_wording::plain;

use super::TextError;

#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenizerConfig {
    pub(super) bos_token: Option<SpecialToken>,
    pub(super) eos_token: Option<SpecialToken>,
    pub(super) pad_token: Option<SpecialToken>,
    pub(super) add_bos_token: Option<bool>,
    pub(super) chat_template: Option<Templates>,
}

impl TokenizerConfig {
    /// Reads the file's bytes; empty bytes mean that there is no such file.
    pub(super) fn read(json: &[u8]) -> Result<Self, TextError> {
        if json.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(json).map_err(|error| TextError::Config { reason: plain(&error.to_string()) })
    }
}

/// Special tokens and chat template of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TokenizerInfo {
    bos_token: Option<String>,
    eos_token: Option<String>,
    pad_token: Option<String>,
    chat_template: Option<String>,
}

impl TokenizerInfo {
    /// Reads the bytes of `tokenizer_config.json`, which may be empty.
    pub fn from_config(config_json: &[u8]) -> Result<Self, TextError> {
        let config = TokenizerConfig::read(config_json)?;
        let text = |token: Option<SpecialToken>| token.map(|token| token.text().to_owned());
        let chat_template = config.chat_template.as_ref().map(Templates::default_source).transpose()?;
        Ok(Self {
            chat_template: chat_template.map(str::to_owned),
            bos_token: text(config.bos_token),
            eos_token: text(config.eos_token),
            pad_token: text(config.pad_token),
        })
    }
}

/// A special token, as plain text or with its tokenising options.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum SpecialToken {
    Text(String),
    Added { content: String },
}

impl SpecialToken {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(content) | Self::Added { content } => content,
        }
    }
}

/// One chat template, or several with names.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Templates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
pub(super) struct NamedTemplate {
    pub(super) name: String,
    pub(super) template: String,
}

impl Templates {
    /// The only template, or the one named `default`.
    pub(super) fn default_source(&self) -> Result<&str, TextError> {
        let named = match self {
            Self::One(source) => return Ok(source),
            Self::Named(named) => named,
        };
        if let [only] = named.as_slice() {
            return Ok(&only.template);
        }
        named.iter().find(|entry| entry.name == "default").map(|entry| entry.template.as_str()).ok_or_else(
            || {
                let names: Vec<_> = named.iter().map(|entry| entry.name.as_str()).collect();
                TextError::Config {
                    reason: format!("chat_template: none of [{}] is named 'default'", names.join(", ")),
                }
            },
        )
    }
}
