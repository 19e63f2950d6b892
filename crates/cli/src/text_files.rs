//! The files of a model's folder that turn text into tokens and back.

use anyhow::{Context, Result, anyhow};
use serde_json::{Map, Value};
use windlass_coordinator::text::{ChatTemplate, Tokenizer};
use windlass_model::ModelFolder;
use windlass_wording::plain;

const CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";

/// The folder's tokenizer, if it has one.
pub(crate) fn tokenizer(folder: &ModelFolder) -> Result<Option<Tokenizer>> {
    let Some(json) = folder.text_file("tokenizer.json")? else { return Ok(None) };
    let config = folder.text_file(CONFIG)?.unwrap_or_default();
    Ok(Some(Tokenizer::new(&json, &config)?))
}

/// Refuses files that no coordinator could use, before a server of them starts.
pub(crate) fn check(folder: &ModelFolder) -> Result<()> {
    tokenizer(folder)?;
    let config = folder.text_file(CONFIG)?.unwrap_or_default();
    match folder.text_file(TEMPLATE)? {
        None => ChatTemplate::from_config(&config)?,
        // A worker hands the template on as part of the config.
        Some(template) => ChatTemplate::from_config(&with_template(&config, template)?)
            .with_context(|| format!("the template of {TEMPLATE} cannot be used"))?,
    };
    Ok(())
}

fn with_template(config: &[u8], template: Vec<u8>) -> Result<Vec<u8>> {
    let template = String::from_utf8(template).with_context(|| format!("{TEMPLATE} is not UTF-8"))?;
    let mut config: Map<String, Value> = match config {
        [] => Map::new(),
        config => serde_json::from_slice(config)
            .map_err(|error| anyhow!("{CONFIG}: {}", plain(&error.to_string())))?,
    };
    config.insert("chat_template".to_owned(), Value::String(template));
    Ok(Value::Object(config).to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    type File<'a> = (&'a str, &'a [u8]);

    /// What a check of the demo's tokenizer with these files says.
    fn check_with(files: &[File]) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        write("config.json", b"{}");
        write("tokenizer.json", &ModelFolder::demo().text_file("tokenizer.json").unwrap().unwrap());
        files.iter().for_each(|(name, bytes)| write(name, bytes));
        let folder = ModelFolder::open(folder.path()).unwrap();
        check(&folder).map_err(|error| crate::with_causes(&error))
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let cases: [(&[File], &str); 7] = [
            (&[("tokenizer.json", b"{}")], "tokenizer.json: "),
            (&[("tokenizer.json", b"")], "tokenizer.json: "),
            (&[(CONFIG, b"{")], "tokenizer_config.json: "),
            (&[(CONFIG, br#"{"chat_template": "{% if %}"}"#)], "tokenizer_config.json: chat_template: "),
            (&[(TEMPLATE, b"{% if %}")], "the template of chat_template.jinja cannot be used: "),
            (&[(TEMPLATE, b"\xFF")], "chat_template.jinja is not UTF-8"),
            (&[(TEMPLATE, b"a"), (CONFIG, b"[]")], "tokenizer_config.json: expected an object, not a list"),
        ];
        for (files, expected) in cases {
            let message = check_with(files).unwrap_err();
            assert!(message.starts_with(expected), "{files:?}: {message}");
        }
    }

    #[test]
    fn a_template_file_stands_for_the_key_of_the_config() {
        check_with(&[]).unwrap();
        check_with(&[(TEMPLATE, b"a")]).unwrap();
        check_with(&[(TEMPLATE, b"a"), (CONFIG, br#"{"chat_template": "{% if %}"}"#)]).unwrap();
        check(&ModelFolder::demo()).unwrap();
    }
}
