//! A model's tensors: matrices where they are stored, all else as f32.

use windlass_kernels::Weight;

use crate::checkpoint::{Checkpoint, EMBEDDING, HEAD};
use crate::config::ModelConfig;
use crate::error::LoadError;

/// How far loading has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes read so far, as stored.
    pub loaded_bytes: u64,
    /// Bytes there are.
    pub total_bytes: u64,
}

/// All tensors of a model. d is the width, V the vocabulary.
///
/// `L` is what became of each layer: [`Weights::load_with`] packs one, and gives back the memory it was read into, before it reads the
/// next.
#[derive(Debug, Clone)]
pub struct Weights<'a, L = LayerWeights<'a>> {
    /// The embedding, `[V, d]`.
    pub wte: Weight<'a>,
    /// The head, `[V, d]`; none where it is the embedding.
    pub head: Option<Weight<'a>>,
    /// Makes a state and an embedding into the core's input, [d, 2d]: state columns first.
    pub adapter: Weight<'a>,
    /// The norm before and after the coda, `[d]`.
    pub ln_f: Vec<f32>,
    /// Layers before the recurrence.
    pub prelude: Vec<L>,
    /// Layers that are iterated.
    pub core: Vec<L>,
    /// Layers after the recurrence.
    pub coda: Vec<L>,
}

/// The tensors of one layer. d is the width, f the feed-forward columns.
#[derive(Debug, Clone)]
pub struct LayerWeights<'a> {
    /// Before attention, `[d]`.
    pub norm_1: Vec<f32>,
    /// After attention's residual, `[d]`.
    pub norm_2: Vec<f32>,
    /// Before the feed-forward, `[d]`.
    pub norm_3: Vec<f32>,
    /// After the feed-forward's residual, `[d]`.
    pub norm_4: Vec<f32>,
    /// Queries, keys, values stacked, `[3d, d]`.
    pub wqkv: Weight<'a>,
    /// Out of attention, `[d, d]`.
    pub proj: Weight<'a>,
    /// Added to queries and keys before rotation, `[2, heads, head_dim]`; none where the model has none.
    pub qk_bias: Option<Vec<f32>>,
    /// Gate and up stacked, `[2f, d]`.
    pub fc: Weight<'a>,
    /// Out of the feed-forward, `[d, f]`.
    pub mlp_proj: Weight<'a>,
}

impl<'a> Weights<'a> {
    /// Verifies the checkpoint against `config`, then loads all of it, telling `progress` after every layer.
    pub fn load(
        checkpoint: &'a Checkpoint,
        config: &ModelConfig,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, LoadError> {
        Self::load_with(checkpoint, config, progress, |_| true, |layer| layer)
    }
}

impl<'a, L> Weights<'a, L> {
    /// The same of the layers that are wanted, by their place in the model, each handed through `pack` as soon as it is read.
    pub fn load_with(
        checkpoint: &'a Checkpoint,
        config: &ModelConfig,
        progress: &mut dyn FnMut(LoadProgress),
        wants: impl Fn(usize) -> bool,
        mut pack: impl FnMut(LayerWeights<'a>) -> L,
    ) -> Result<Self, LoadError> {
        checkpoint.verify(config)?;
        let mut progress = Progress { checkpoint, report: progress, loaded_bytes: 0 };
        let d = config.hidden;
        let wte = checkpoint.weight(EMBEDDING, &[config.vocabulary, d])?;
        progress.advance(EMBEDDING);
        let head = (!config.tied).then(|| checkpoint.weight(HEAD, &[config.vocabulary, d])).transpose()?;
        progress.advance(HEAD);
        let adapter = checkpoint.weight("transformer.adapter.weight", &[d, 2 * d])?;
        progress.advance("transformer.adapter.");
        let ln_f = checkpoint.tensor("transformer.ln_f.weight", &[d])?;
        progress.advance("transformer.ln_f.");
        let mut before = 0;
        let mut layers = |part: &str, count: usize| -> Result<Vec<L>, LoadError> {
            let mut loaded = Vec::new();
            for i in 0..count {
                let prefix = format!("transformer.{part}.{i}");
                if wants(before + i) {
                    loaded.push(pack(LayerWeights::load(checkpoint, config, &prefix)?));
                    checkpoint.forget(&format!("{prefix}."));
                }
                progress.advance(&format!("{prefix}."));
            }
            before += count;
            Ok(loaded)
        };
        let prelude = layers("prelude", config.prelude_layers)?;
        let core = layers("core_block", config.core_layers)?;
        let coda = layers("coda", config.coda_layers)?;
        Ok(Self { wte, head, adapter, ln_f, prelude, core, coda })
    }
}

impl<'a> LayerWeights<'a> {
    /// Loads one layer, for instance `transformer.core_block.0`.
    pub fn load(checkpoint: &'a Checkpoint, config: &ModelConfig, prefix: &str) -> Result<Self, LoadError> {
        let (d, f) = (config.hidden, config.intermediate);
        let weight = |name: &str, shape: &[usize]| checkpoint.weight(&format!("{prefix}.{name}"), shape);
        let tensor = |name: &str, shape: &[usize]| checkpoint.tensor(&format!("{prefix}.{name}"), shape);
        let bias_shape = [2, 1, config.heads, config.head_dim];
        Ok(Self {
            norm_1: tensor("norm_1.weight", &[d])?,
            norm_2: tensor("norm_2.weight", &[d])?,
            norm_3: tensor("norm_3.weight", &[d])?,
            norm_4: tensor("norm_4.weight", &[d])?,
            wqkv: weight("attn.Wqkv.weight", &[3 * d, d])?,
            proj: weight("attn.proj.weight", &[d, d])?,
            qk_bias: config.qk_bias.then(|| tensor("attn.qk_bias", &bias_shape)).transpose()?,
            fc: weight("mlp.fc.weight", &[2 * f, d])?,
            mlp_proj: weight("mlp.proj.weight", &[d, f])?,
        })
    }
}

struct Progress<'a> {
    checkpoint: &'a Checkpoint,
    report: &'a mut dyn FnMut(LoadProgress),
    loaded_bytes: u64,
}

impl Progress<'_> {
    fn advance(&mut self, prefix: &str) {
        self.loaded_bytes += self.checkpoint.bytes_under(prefix);
        let total_bytes = self.checkpoint.total_bytes();
        (self.report)(LoadProgress { loaded_bytes: self.loaded_bytes, total_bytes });
    }
}
