//! The model folder's text files, handed on for others to tokenise with.

use serde_json::{Map, Value};
use windlass_model::ModelFolder;
use windlass_proto::v1::TokenizerResponse;

use crate::error::WorkerError;

/// Reads the files. A chat template in a file of its own becomes the tokenizer config's `chat_template`.
pub(crate) fn tokenizer_files(folder: &ModelFolder) -> Result<TokenizerResponse, WorkerError> {
    let tokenizer = folder.text_file("tokenizer.json")?;
    let config = folder.text_file("tokenizer_config.json")?;
    let config = match folder.text_file("chat_template.jinja")? {
        Some(template) => Some(with_template(config.as_deref(), template)?),
        None => config,
    };
    Ok(TokenizerResponse {
        tokenizer_json: tokenizer.unwrap_or_default(),
        tokenizer_config_json: config.unwrap_or_default(),
    })
}

fn with_template(config: Option<&[u8]>, template: Vec<u8>) -> Result<Vec<u8>, WorkerError> {
    let wrong = |reason: String| WorkerError::TokenizerConfig { reason };
    let template = String::from_utf8(template).map_err(|error| wrong(error.to_string()))?;
    let mut config: Map<String, Value> = match config {
        Some(json) => serde_json::from_slice(json).map_err(|error| wrong(error.to_string()))?,
        None => Map::new(),
    };
    config.insert("chat_template".to_owned(), Value::String(template));
    Ok(Value::Object(config).to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("config.json", "{}")].iter().chain(files) {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn config_of(files: &[(&str, &str)]) -> Result<String, WorkerError> {
        let folder = folder(files);
        let files = tokenizer_files(&ModelFolder::open(folder.path()).unwrap())?;
        Ok(String::from_utf8(files.tokenizer_config_json).unwrap())
    }

    #[test]
    fn a_template_file_takes_the_place_of_the_key() {
        let template = ("chat_template.jinja", "{{ \"new\" }}");
        let config = ("tokenizer_config.json", r#"{"eos_token":"e","chat_template":"old"}"#);
        let merged = r#"{"chat_template":"{{ \"new\" }}","eos_token":"e"}"#;
        assert_eq!(config_of(&[template, config]).unwrap(), merged);
        assert_eq!(config_of(&[template]).unwrap(), r#"{"chat_template":"{{ \"new\" }}"}"#);
        assert_eq!(config_of(&[config]).unwrap(), config.1);
        assert_eq!(config_of(&[]).unwrap(), "");
        let error = config_of(&[template, ("tokenizer_config.json", "[]")]).unwrap_err().to_string();
        assert!(error.starts_with("tokenizer_config.json cannot take in chat_template.jinja: "), "{error}");
    }
}
