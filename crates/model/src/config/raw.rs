//! The JSON as it is written, and the checks that turn it into a [`ModelConfig`].

use serde::Deserialize;
use serde_json::Value;

use super::sizes::{MOST_HEAD_DIM, MOST_HIDDEN, MOST_INTERMEDIATE, MOST_VOCABULARY, is_head_dim};
use super::{CONFIG_FILE, GENERATION_FILE, ModelConfig, wrong};
use crate::error::ConfigError;

/// The keys of `config.json` that matter to inference; where one may be left out, the reference's default applies.
#[derive(Deserialize)]
pub(super) struct RawConfig {
    n_embd: u64,
    n_heads: u64,
    num_attention_heads: Option<u64>,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    intermediate_size: u64,
    vocab_size: u64,
    padded_vocab_size: Option<u64>,
    #[serde(default = "default_padding_multiple")]
    padding_multiple: u64,
    n_layers: Option<u64>,
    n_layers_in_prelude: u64,
    n_layers_in_recurrent_block: u64,
    n_layers_in_coda: u64,
    block_size: u64,
    mean_recurrence: u64,
    norm_eps: f64,
    rope_base: f64,
    rope_scaling: Option<Value>,
    qk_bias: bool,
    tie_embeddings: bool,
    tie_word_embeddings: Option<bool>,
    #[serde(default)]
    bias: bool,
    model_type: Option<String>,
    block_class_name: Option<String>,
    norm_class_name: Option<String>,
    mlp_class_name: Option<String>,
    nonlin_name: Option<String>,
    injection_type: Option<String>,
    state_init: Option<String>,
    #[serde(default)]
    test_time_noise: f64,
    init_values: Option<InitValues>,
    eos_token_id: Option<Tokens>,
    bos_token_id: Option<u32>,
}

fn default_padding_multiple() -> u64 {
    4096
}

/// Constants of the initialisation that inference uses too.
#[derive(Deserialize)]
struct InitValues {
    embed_scale: Option<f64>,
    std: Option<f64>,
}

/// The keys of `generation_config.json` that belong to the model's config.
#[derive(Deserialize, Default)]
pub(super) struct RawGeneration {
    eos_token_id: Option<Tokens>,
    bos_token_id: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a token id or a list of token ids")]
enum Tokens {
    One(u32),
    Several(Vec<u32>),
}

impl Tokens {
    fn ids(&self) -> &[u32] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Several(ids) => ids,
        }
    }
}

impl RawConfig {
    /// Refuses whatever would be computed differently from what is implemented.
    pub(super) fn check_implemented(&self) -> Result<(), ConfigError> {
        let names = [
            ("model_type", &self.model_type, "huginn_raven"),
            ("block_class_name", &self.block_class_name, "SandwichBlock"),
            ("norm_class_name", &self.norm_class_name, "RMSNorm_llama"),
            ("mlp_class_name", &self.mlp_class_name, "GatedMLP"),
            ("nonlin_name", &self.nonlin_name, "SiLU"),
            ("injection_type", &self.injection_type, "linear"),
            ("state_init", &self.state_init, "like-init"),
        ];
        for (field, value, implemented) in names {
            match value {
                Some(value) if value != implemented => {
                    return Err(wrong(
                        field,
                        &format!("'{value}'"),
                        format!("only '{implemented}' is implemented"),
                    ));
                }
                _ => {}
            }
        }
        if self.bias {
            return Err(wrong("bias", &true, "only projections without bias are implemented"));
        }
        if self.test_time_noise != 0.0 {
            return Err(wrong("test_time_noise", &self.test_time_noise, "only 0 is implemented"));
        }
        if let Some(scaling) = &self.rope_scaling {
            return Err(wrong("rope_scaling", scaling, "only null is implemented"));
        }
        if let Some(tied) = self.tie_word_embeddings.filter(|&tied| tied != self.tie_embeddings) {
            return Err(wrong("tie_word_embeddings", &tied, "must equal tie_embeddings"));
        }
        self.check_init_values()
    }

    /// The embedding scale and the initial latent's spread are fixed functions of the width.
    fn check_init_values(&self) -> Result<(), ConfigError> {
        let Some(values) = &self.init_values else { return Ok(()) };
        let width = self.n_embd as f64;
        let constants = [
            ("init_values.embed_scale", values.embed_scale, width.sqrt(), "sqrt(n_embd)"),
            ("init_values.std", values.std, (2.0 / (5.0 * width)).sqrt(), "sqrt(2 / (5 n_embd))"),
        ];
        for (field, value, implemented, formula) in constants {
            if let Some(value) = value.filter(|value| (value - implemented).abs() > 1e-4 * implemented) {
                return Err(wrong(field, &value, format!("only {formula}, {implemented}, is implemented")));
            }
        }
        Ok(())
    }

    /// Refuses sizes that no model has, and that backends need not be made for.
    pub(super) fn check_sizes(&self) -> Result<(), ConfigError> {
        let ranges = [
            ("n_embd", self.n_embd, MOST_HIDDEN),
            ("n_heads", self.n_heads, 1 << 12),
            ("intermediate_size", self.intermediate_size, MOST_INTERMEDIATE),
            ("vocab_size", self.vocab_size, MOST_VOCABULARY),
            ("padding_multiple", self.padding_multiple, MOST_VOCABULARY),
            ("padded_vocab_size", self.vocabulary(), MOST_VOCABULARY),
            ("n_layers_in_prelude", self.n_layers_in_prelude, 1 << 10),
            ("n_layers_in_recurrent_block", self.n_layers_in_recurrent_block, 1 << 10),
            ("n_layers_in_coda", self.n_layers_in_coda, 1 << 10),
            ("block_size", self.block_size, 1 << 24),
            ("mean_recurrence", self.mean_recurrence, 1 << 12),
        ];
        for (field, value, most) in ranges {
            if value < 1 || value > most {
                return Err(wrong(field, &value, format!("must be from 1 to {most}")));
            }
        }
        for (field, value) in [("norm_eps", self.norm_eps), ("rope_base", self.rope_base)] {
            if !value.is_finite() || value <= 0.0 {
                return Err(wrong(field, &value, "must be a finite number above 0"));
            }
        }
        if self.vocabulary() < self.vocab_size {
            let remedy = format!("must be at least vocab_size, {}", self.vocab_size);
            return Err(wrong("padded_vocab_size", &self.vocabulary(), remedy));
        }
        let layers = self.n_layers_in_prelude + self.n_layers_in_recurrent_block + self.n_layers_in_coda;
        if let Some(total) = self.n_layers.filter(|&total| total != layers) {
            return Err(wrong(
                "n_layers",
                &total,
                format!("must be {layers}, the sum of prelude, core and coda"),
            ));
        }
        self.check_heads()
    }

    fn check_heads(&self) -> Result<(), ConfigError> {
        let (heads, width) = (self.n_heads, self.n_embd);
        if !width.is_multiple_of(heads) || !is_head_dim(width / heads) {
            let remedy =
                format!("must divide n_embd, {width}, into heads of an even size up to {MOST_HEAD_DIM}");
            return Err(wrong("n_heads", &heads, remedy));
        }
        let repeated = [
            ("num_attention_heads", self.num_attention_heads, heads),
            ("num_key_value_heads", self.num_key_value_heads, heads),
            ("head_dim", self.head_dim, width / heads),
        ];
        for (field, value, implied) in repeated {
            if let Some(value) = value.filter(|&value| value != implied) {
                return Err(wrong(
                    field,
                    &value,
                    format!("must be {implied}: {width} / {heads} heads, none shared"),
                ));
            }
        }
        Ok(())
    }

    /// Refuses tokens that the model can neither read nor write.
    pub(super) fn check_tokens(&self, generation: &RawGeneration) -> Result<(), ConfigError> {
        let files = [
            (CONFIG_FILE, &self.eos_token_id, self.bos_token_id),
            (GENERATION_FILE, &generation.eos_token_id, generation.bos_token_id),
        ];
        for (file, eos, bos) in files {
            let eos = eos.iter().flat_map(Tokens::ids).map(|&token| ("eos_token_id", token));
            for (field, token) in eos.chain(bos.map(|token| ("bos_token_id", token))) {
                if u64::from(token) >= self.vocabulary() {
                    let remedy = format!("must be below the vocabulary's size, {}", self.vocabulary());
                    return Err(ConfigError::Value {
                        file,
                        field: field.to_owned(),
                        value: token.to_string(),
                        remedy,
                    });
                }
            }
        }
        Ok(())
    }

    fn vocabulary(&self) -> u64 {
        match self.padded_vocab_size {
            Some(padded) => padded,
            None => {
                self.vocab_size.div_ceil(self.padding_multiple.max(1)).saturating_mul(self.padding_multiple)
            }
        }
    }

    /// The config proper; sizes must have been checked.
    pub(super) fn into_config(self, generation: &RawGeneration) -> ModelConfig {
        let size = |value: u64| usize::try_from(value).expect("sizes were checked");
        let mut stop_tokens: Vec<u32> = [&self.eos_token_id, &generation.eos_token_id]
            .into_iter()
            .flatten()
            .flat_map(Tokens::ids)
            .copied()
            .collect();
        stop_tokens.sort_unstable();
        stop_tokens.dedup();
        ModelConfig {
            hidden: size(self.n_embd),
            heads: size(self.n_heads),
            head_dim: size(self.n_embd / self.n_heads),
            intermediate: size(self.intermediate_size),
            vocabulary: size(self.vocabulary()),
            prelude_layers: size(self.n_layers_in_prelude),
            core_layers: size(self.n_layers_in_recurrent_block),
            coda_layers: size(self.n_layers_in_coda),
            context_length: size(self.block_size),
            mean_recurrence: u32::try_from(self.mean_recurrence).expect("sizes were checked"),
            norm_eps: self.norm_eps,
            rope_base: self.rope_base,
            qk_bias: self.qk_bias,
            tied: self.tie_embeddings,
            stop_tokens,
            bos_token: generation.bos_token_id.or(self.bos_token_id),
        }
    }
}
