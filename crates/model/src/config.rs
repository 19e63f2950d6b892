//! What a model is made of, from its `config.json`.
//!
//! A published config carries many keys that only matter for training; those are allowed and unread. A key
//! whose value would change what is computed in a way that is not implemented is an error.

mod raw;
pub(crate) mod sizes;

use serde::de::DeserializeOwned;

use crate::error::ConfigError;
use raw::{RawConfig, RawGeneration};

/// The file a [`ModelConfig`] is read from.
pub const CONFIG_FILE: &str = "config.json";
/// The file with stop tokens and efforts.
pub const GENERATION_FILE: &str = "generation_config.json";

/// Sizes and constants of one model; every number in it has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Length of a latent and of an embedding.
    pub hidden: usize,
    /// Attention heads; keys and values have as many.
    pub heads: usize,
    /// Length of one head's query, `hidden / heads`, even, 256 at most.
    pub head_dim: usize,
    /// Feed-forward columns: `fc` has twice as many rows, gate first.
    pub intermediate: usize,
    /// Length of a row of logits: the vocabulary with its padding.
    pub vocabulary: usize,
    /// Layers before the recurrence.
    pub prelude_layers: usize,
    /// Layers of the shared block that is iterated.
    pub core_layers: usize,
    /// Layers after the recurrence.
    pub coda_layers: usize,
    /// Most positions of one sequence.
    pub context_length: usize,
    /// Depth the model was trained for.
    pub mean_recurrence: u32,
    /// Added to the mean square in every RMSNorm.
    pub norm_eps: f64,
    /// Base of the rotary embedding's wavelengths.
    pub rope_base: f64,
    /// Whether queries and keys get a bias before they are rotated.
    pub qk_bias: bool,
    /// Whether the head is the embedding's own matrix.
    pub tied: bool,
    /// Tokens that end a generation, ascending.
    pub stop_tokens: Vec<u32>,
    /// Token put before a text, if the model has one.
    pub bos_token: Option<u32>,
}

impl ModelConfig {
    /// Reads the contents of `config.json` and, where the folder has one, `generation_config.json`.
    ///
    /// Stop tokens are those of both files; the second file's begin-of-text token wins.
    pub fn parse(config: &[u8], generation: Option<&[u8]>) -> Result<Self, ConfigError> {
        let raw: RawConfig = from_json(CONFIG_FILE, config)?;
        let generation: RawGeneration = match generation {
            Some(bytes) => from_json(GENERATION_FILE, bytes)?,
            None => RawGeneration::default(),
        };
        raw.check_sizes()?;
        raw.check_implemented()?;
        raw.check_tokens(&generation)?;
        Ok(raw.into_config(&generation))
    }

    /// Names and shapes of all tensors the model needs, in loading order.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut tensors = vec![
            ("transformer.wte.weight".to_owned(), vec![self.vocabulary, self.hidden]),
            ("transformer.adapter.weight".to_owned(), vec![self.hidden, 2 * self.hidden]),
            ("transformer.ln_f.weight".to_owned(), vec![self.hidden]),
        ];
        if !self.tied {
            tensors.push(("lm_head.weight".to_owned(), vec![self.vocabulary, self.hidden]));
        }
        for prefix in self.layer_prefixes() {
            tensors.extend(
                self.layer_tensors().into_iter().map(|(name, shape)| (format!("{prefix}.{name}"), shape)),
            );
        }
        tensors
    }

    /// Name prefixes of all layers: prelude, core, coda.
    pub fn layer_prefixes(&self) -> Vec<String> {
        let parts =
            [("prelude", self.prelude_layers), ("core_block", self.core_layers), ("coda", self.coda_layers)];
        parts
            .into_iter()
            .flat_map(|(part, layers)| (0..layers).map(move |i| format!("transformer.{part}.{i}")))
            .collect()
    }

    /// How many numbers the model's tensors hold.
    pub fn parameters(&self) -> u64 {
        self.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum()
    }

    fn layer_tensors(&self) -> Vec<(&'static str, Vec<usize>)> {
        let (d, f) = (self.hidden, self.intermediate);
        let mut tensors = vec![
            ("norm_1.weight", vec![d]),
            ("norm_2.weight", vec![d]),
            ("norm_3.weight", vec![d]),
            ("norm_4.weight", vec![d]),
            ("attn.Wqkv.weight", vec![3 * d, d]),
            ("attn.proj.weight", vec![d, d]),
            ("mlp.fc.weight", vec![2 * f, d]),
            ("mlp.proj.weight", vec![d, f]),
        ];
        if self.qk_bias {
            tensors.push(("attn.qk_bias", vec![2, 1, self.heads, self.head_dim]));
        }
        tensors
    }
}

/// A value of `config.json` that cannot be served.
fn wrong(field: &str, value: &impl ToString, remedy: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        file: CONFIG_FILE,
        field: field.to_owned(),
        value: value.to_string(),
        remedy: remedy.into(),
    }
}

/// Reads one of the model's JSON files; an error names the field it is about.
pub(crate) fn from_json<T: DeserializeOwned>(file: &'static str, bytes: &[u8]) -> Result<T, ConfigError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        // The path ends unknown where the text ends too early.
        let field = path.trim_end_matches('?').trim_matches('.').to_owned();
        let source = error.into_inner();
        if field.is_empty() || source.is_eof() || source.is_syntax() {
            ConfigError::Json { file, source }
        } else {
            ConfigError::Field { file, field, source }
        }
    })?;
    json.end().map_err(|source| ConfigError::Json { file, source })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const DEMO: &[u8] = include_bytes!("../../../models/demo/config.json");

    fn demo_with(field: &str, value: Value) -> Result<ModelConfig, ConfigError> {
        let mut config: Value = serde_json::from_slice(DEMO).unwrap();
        config[field] = value;
        ModelConfig::parse(config.to_string().as_bytes(), None)
    }

    #[test]
    fn the_demo_config_is_read_in_full() {
        let config =
            ModelConfig::parse(DEMO, Some(br#"{"eos_token_id": [7, 2], "bos_token_id": 3}"#)).unwrap();
        assert_eq!((config.hidden, config.heads, config.head_dim, config.intermediate), (128, 4, 32, 352));
        assert_eq!((config.prelude_layers, config.core_layers, config.coda_layers), (1, 2, 1));
        assert_eq!((config.vocabulary, config.context_length, config.mean_recurrence), (64, 256, 16));
        assert_eq!((config.stop_tokens, config.bos_token), (vec![2, 7], Some(3)));
    }

    #[test]
    fn the_vocabulary_is_padded_to_its_multiple_where_no_padded_size_is_given() {
        let mut config: Value = serde_json::from_slice(DEMO).unwrap();
        config.as_object_mut().unwrap().remove("padded_vocab_size");
        config["vocab_size"] = json!(65);
        assert_eq!(ModelConfig::parse(config.to_string().as_bytes(), None).unwrap().vocabulary, 128);
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name_and_value() {
        let cases = [
            ("model_type", json!("ouro")),
            ("block_class_name", json!("TransformerPreNormBlock")),
            ("norm_class_name", json!("LayerNorm")),
            ("mlp_class_name", json!("BaseMLP")),
            ("nonlin_name", json!("GELU")),
            ("injection_type", json!("add")),
            ("state_init", json!("zero")),
            ("bias", json!(true)),
            ("test_time_noise", json!(0.5)),
            ("num_key_value_heads", json!(2)),
            ("rope_scaling", json!({"type": "linear"})),
            ("init_values", json!({"embed_scale": 1.0})),
        ];
        for (field, value) in cases {
            let message = demo_with(field, value).unwrap_err().to_string();
            assert!(message.starts_with(&format!("config.json: {field}")), "{message}");
        }
    }

    #[test]
    fn impossible_sizes_are_refused_by_name_and_value() {
        let cases = [
            ("n_embd", json!(0)),
            ("n_embd", json!(1u64 << 40)),
            ("n_heads", json!(3)),
            ("n_heads", json!(128)),
            ("intermediate_size", json!(0)),
            ("n_layers_in_recurrent_block", json!(0)),
            ("n_layers", json!(5)),
            ("padded_vocab_size", json!(63)),
            ("head_dim", json!(16)),
            ("block_size", json!(0)),
            ("mean_recurrence", json!(0)),
            ("norm_eps", json!(-1.0)),
            ("rope_base", json!(0)),
            ("eos_token_id", json!([2, 64])),
            ("bos_token_id", json!(64)),
        ];
        for (field, value) in cases {
            let message = demo_with(field, value.clone()).unwrap_err().to_string();
            assert!(message.starts_with(&format!("config.json: {field} is ")), "{value}: {message}");
        }
    }

    #[test]
    fn wrong_types_are_refused_by_name() {
        let tokens = "expected a token id or a list of token ids";
        let cases = [
            (
                "n_embd",
                json!("128"),
                "n_embd: expected a whole number from 0 to 18446744073709551615, not \"128\"",
            ),
            ("tie_embeddings", json!(1), "tie_embeddings: expected true or false, not 1"),
            ("init_values", json!({"std": "x"}), "init_values.std: expected a number, not \"x\""),
            ("eos_token_id", json!("<end>"), &format!("eos_token_id: {tokens}")),
            ("eos_token_id", json!([1, -1]), &format!("eos_token_id: {tokens}")),
        ];
        for (field, value, expected) in cases {
            let message = demo_with(field, value).unwrap_err().to_string();
            assert!(message.starts_with(&format!("config.json: {expected}")), "{message}");
        }
        let message =
            ModelConfig::parse(DEMO, Some(br#"{"eos_token_id": null, "bos_token_id": []}"#)).unwrap_err();
        assert!(message.to_string().starts_with("generation_config.json: bos_token_id: "), "{message}");
    }

    #[test]
    fn what_is_no_config_at_all_is_refused() {
        for text in ["", "{}", "[]", "{\"a\": 1} b", "{\"a\": ", "{\"n_embd\": 1", "{\"n_embd\": }"] {
            let message = ModelConfig::parse(text.as_bytes(), None).unwrap_err().to_string();
            assert!(message.starts_with("config.json cannot be read: "), "{message}");
            assert!(!message.contains('?') && !message.contains("struct"), "{message}");
        }
    }
}
