//! Models of any shape with random weights: for measurements, where what a model says does not matter.

use std::thread;

use windlass_kernels::Weight;

use crate::config::ModelConfig;
use crate::config::sizes::{MOST_HEAD_DIM, MOST_HIDDEN, MOST_INTERMEDIATE, MOST_VOCABULARY, is_head_dim};
use crate::random::{Stream, draw};
use crate::weights::{LayerWeights, Weights};

/// Of a tensor that several threads fill, what each gets at least, in fours.
const LEAST_QUADS: usize = 1 << 14;

/// Sizes of a model without a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Length of a latent.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Feed-forward columns.
    pub intermediate: usize,
    /// Layers before the recurrence.
    pub prelude_layers: usize,
    /// Layers that are iterated.
    pub core_layers: usize,
    /// Layers after the recurrence.
    pub coda_layers: usize,
    /// Length of a row of logits.
    pub vocabulary: usize,
    /// Most positions of one sequence.
    pub context_length: usize,
}

/// A size that no model can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}: {remedy}")]
pub struct ShapeError {
    /// The size at fault, as the field of [`Shape`].
    pub field: &'static str,
    /// The value found.
    pub value: usize,
    /// What would be right.
    pub remedy: String,
}

impl Shape {
    /// That of Huginn-0125 (arXiv 2502.05171).
    pub const HUGINN: Self = Self {
        hidden: 5280,
        heads: 55,
        intermediate: 17_920,
        prelude_layers: 2,
        core_layers: 4,
        coda_layers: 2,
        vocabulary: 65_536,
        context_length: 4096,
    };

    /// Checks every size, and makes a config of them: the constants of Huginn-0125, a tied head, biases on queries and keys.
    pub fn config(&self) -> Result<ModelConfig, ShapeError> {
        self.validate()?;
        Ok(ModelConfig {
            hidden: self.hidden,
            heads: self.heads,
            head_dim: self.hidden / self.heads,
            intermediate: self.intermediate,
            vocabulary: self.vocabulary,
            prelude_layers: self.prelude_layers,
            core_layers: self.core_layers,
            coda_layers: self.coda_layers,
            context_length: self.context_length,
            mean_recurrence: 32,
            norm_eps: 1e-6,
            rope_base: 50_000.0,
            qk_bias: true,
            tied: true,
            stop_tokens: Vec::new(),
            bos_token: None,
        })
    }

    fn validate(&self) -> Result<(), ShapeError> {
        let ranges = [
            ("hidden", self.hidden, MOST_HIDDEN),
            ("heads", self.heads, 1 << 12),
            ("intermediate", self.intermediate, MOST_INTERMEDIATE),
            ("prelude_layers", self.prelude_layers, 1 << 10),
            ("core_layers", self.core_layers, 1 << 10),
            ("coda_layers", self.coda_layers, 1 << 10),
            ("vocabulary", self.vocabulary, MOST_VOCABULARY),
            ("context_length", self.context_length, 1 << 24),
        ];
        for (field, value, most) in ranges {
            if value < 1 || value as u64 > most {
                return Err(ShapeError { field, value, remedy: format!("use 1 to {most}") });
            }
        }
        let (heads, hidden) = (self.heads, self.hidden);
        if !hidden.is_multiple_of(heads) || !is_head_dim((hidden / heads) as u64) {
            let remedy = format!(
                "use a number that divides the width, {hidden}, into heads of an even size up to {MOST_HEAD_DIM}"
            );
            return Err(ShapeError { field: "heads", value: heads, remedy });
        }
        Ok(())
    }
}

/// Random weights, a function of config and seed.
///
/// They have the deviation √(2 / 5d) that Huginn models are initialised with, norms weigh 1, so that latents stay of
/// a size over any number of iterations.
pub(crate) struct Synthetic {
    wte: Vec<f32>,
    head: Option<Vec<f32>>,
    adapter: Vec<f32>,
    /// Those of the layers, which are made when they are needed.
    layers: Tensors,
}

impl Synthetic {
    pub(crate) fn new(config: &ModelConfig, seed: u64) -> Self {
        let (d, v) = (config.hidden, config.vocabulary);
        let mut tensors = Tensors::new(config, seed);
        let wte = tensors.next(v * d);
        let head = (!config.tied).then(|| tensors.next(v * d));
        let adapter = tensors.next(2 * d * d);
        Self { wte, head, adapter, layers: tensors }
    }

    /// All of them, each layer handed through `pack` before the next one is made.
    pub(crate) fn weights<L>(
        &self,
        config: &ModelConfig,
        mut pack: impl FnMut(LayerWeights<'_>) -> L,
    ) -> Weights<'_, L> {
        let d = config.hidden;
        let mut tensors = self.layers;
        let mut layers = |count: usize| (0..count).map(|_| tensors.layer(config, &mut pack)).collect();
        Weights {
            wte: Weight::of(&self.wte, d),
            head: self.head.as_ref().map(|head| Weight::of(head, d)),
            adapter: Weight::of(&self.adapter, 2 * d),
            ln_f: vec![1.0; d],
            prelude: layers(config.prelude_layers),
            core: layers(config.core_layers),
            coda: layers(config.coda_layers),
        }
    }
}

/// Random tensors, one after the other.
#[derive(Clone, Copy)]
struct Tensors {
    seed: u64,
    /// Which tensor is next.
    index: u32,
    /// Entries are uniform between minus this and this.
    bound: f32,
}

impl Tensors {
    fn new(config: &ModelConfig, seed: u64) -> Self {
        let deviation = (2.0 / (5.0 * config.hidden as f64)).sqrt();
        Self { seed, index: 0, bound: (3.0_f64.sqrt() * deviation) as f32 }
    }

    fn layer<L>(&mut self, config: &ModelConfig, pack: impl FnOnce(LayerWeights<'_>) -> L) -> L {
        let (d, f) = (config.hidden, config.intermediate);
        let norm = || vec![1.0; d];
        let (wqkv, proj) = (self.next(3 * d * d), self.next(d * d));
        let qk_bias = config.qk_bias.then(|| self.next(2 * d));
        let (fc, mlp_proj) = (self.next(2 * f * d), self.next(d * f));
        pack(LayerWeights {
            norm_1: norm(),
            norm_2: norm(),
            norm_3: norm(),
            norm_4: norm(),
            wqkv: Weight::of(&wqkv, d),
            proj: Weight::of(&proj, d),
            qk_bias,
            fc: Weight::of(&fc, d),
            mlp_proj: Weight::of(&mlp_proj, f),
        })
    }

    fn next(&mut self, len: usize) -> Vec<f32> {
        let tensors = *self;
        let mut values = vec![0.0; len];
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let quads = len.div_ceil(4).div_ceil(threads).max(LEAST_QUADS);
        thread::scope(|scope| {
            for (part, values) in values.chunks_mut(4 * quads).enumerate() {
                scope.spawn(move || tensors.fill(values, part * quads));
            }
        });
        self.index += 1;
        values
    }

    /// Fills a part of the next tensor that has so many times four values before it.
    fn fill(self, values: &mut [f32], quads: usize) {
        let step = self.bound / 2.0_f32.powi(31);
        for (i, values) in values.chunks_mut(4).enumerate() {
            let words = draw(self.seed, Stream::Weights, self.index, (quads + i) as u32);
            for (value, word) in values.iter_mut().zip(words) {
                *value = word.cast_signed() as f32 * step;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Shape = Shape {
        hidden: 16,
        heads: 2,
        intermediate: 24,
        prelude_layers: 1,
        core_layers: 2,
        coda_layers: 1,
        vocabulary: 32,
        context_length: 64,
    };

    fn count(layer: LayerWeights<'_>) -> usize {
        let LayerWeights { norm_1, norm_2, norm_3, norm_4, wqkv, proj, qk_bias, fc, mlp_proj } = layer;
        let matrices = [wqkv, proj, fc, mlp_proj].map(|matrix| matrix.rows() * matrix.width());
        let norms = [norm_1, norm_2, norm_3, norm_4].map(|norm| norm.len());
        [matrices, norms].as_flattened().iter().sum::<usize>() + qk_bias.map_or(0, |bias| bias.len())
    }

    #[test]
    fn there_are_as_many_weights_as_the_config_asks_for() {
        let config = TINY.config().unwrap();
        let synthetic = Synthetic::new(&config, 1);
        let Weights { wte, head, adapter, ln_f, prelude, core, coda } = synthetic.weights(&config, count);
        let ends = [wte, adapter].map(|matrix| matrix.rows() * matrix.width()).iter().sum::<usize>();
        let layers = [prelude, core, coda].concat().iter().sum::<usize>();
        assert_eq!(((ends + ln_f.len() + layers) as u64, head.is_none()), (config.parameters(), true));
    }

    #[test]
    fn weights_have_the_deviation_of_the_models_and_depend_on_the_seed() {
        let config = Shape { hidden: 128, ..TINY }.config().unwrap();
        let adapter = Synthetic::new(&config, 1).adapter;
        let mean = adapter.iter().sum::<f32>() / adapter.len() as f32;
        let deviation = (adapter.iter().map(|x| x * x).sum::<f32>() / adapter.len() as f32).sqrt();
        let expected = (2.0_f32 / (5.0 * 128.0)).sqrt();
        assert!(mean.abs() < 0.01 * expected && (deviation / expected - 1.0).abs() < 0.01);
        assert_eq!(adapter, Synthetic::new(&config, 1).adapter);
        let other = Synthetic::new(&config, 2);
        assert_ne!(adapter, other.adapter);
        let core = other.weights(&config, |layer| layer.proj.to_vec()).core;
        assert_ne!(core[0], core[1]);
    }

    #[test]
    fn a_tensor_is_the_same_in_parts() {
        let mut tensors = Tensors::new(&TINY.config().unwrap(), 3);
        tensors.next(5);
        let of_next = tensors;
        let in_parts = tensors.next(4 * 3 * LEAST_QUADS + 3);
        let mut whole = vec![0.0; in_parts.len()];
        of_next.fill(&mut whole, 0);
        assert_eq!(in_parts, whole);
    }

    #[test]
    fn impossible_sizes_are_refused_by_name_and_value() {
        let cases = [
            (Shape { hidden: 0, ..TINY }, "hidden is 0: use 1 to 32768"),
            (Shape { hidden: 516, heads: 2, ..TINY }, "heads is 2: use a number"),
            (Shape { heads: 3, ..TINY }, "heads is 3: use a number that divides the width, 16,"),
            (Shape { heads: 16, ..TINY }, "heads is 16: use a number"),
            (Shape { intermediate: 1 << 21, ..TINY }, "intermediate is 2097152: use 1 to 65536"),
            (Shape { core_layers: 0, ..TINY }, "core_layers is 0: use 1 to 1024"),
            (Shape { vocabulary: 0, ..TINY }, "vocabulary is 0"),
            (Shape { context_length: 0, ..TINY }, "context_length is 0"),
        ];
        for (shape, expected) in cases {
            let message = shape.config().unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
