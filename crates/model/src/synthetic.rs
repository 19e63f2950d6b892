//! Models of any shape with random weights: for measurements, where what a model says does not matter.

use crate::config::ModelConfig;
use crate::random::{Stream, draw};
use crate::weights::{LayerWeights, Weights};

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
            ("hidden", self.hidden, 1 << 16),
            ("heads", self.heads, 1 << 12),
            ("intermediate", self.intermediate, 1 << 20),
            ("prelude_layers", self.prelude_layers, 1 << 10),
            ("core_layers", self.core_layers, 1 << 10),
            ("coda_layers", self.coda_layers, 1 << 10),
            ("vocabulary", self.vocabulary, 1 << 25),
            ("context_length", self.context_length, 1 << 24),
        ];
        for (field, value, most) in ranges {
            if value < 1 || value > most {
                return Err(ShapeError { field, value, remedy: format!("use 1 to {most}") });
            }
        }
        let (heads, hidden) = (self.heads, self.hidden);
        if !hidden.is_multiple_of(heads) || !(hidden / heads).is_multiple_of(2) {
            let remedy = format!("use a number that divides the width, {hidden}, into heads of an even size");
            return Err(ShapeError { field: "heads", value: heads, remedy });
        }
        Ok(())
    }
}

/// Random weights for `config`, each layer handed through `pack` before the next one is made. A function of `config` and
/// `seed`.
///
/// Weights have the deviation √(2 / 5d) that Huginn models are initialised with, norms weigh 1, so that latents stay of
/// a size over any number of iterations.
pub(crate) fn weights<L>(
    config: &ModelConfig,
    seed: u64,
    mut pack: impl FnMut(LayerWeights) -> L,
) -> Weights<L> {
    let (d, v) = (config.hidden, config.vocabulary);
    let mut tensors = Tensors::new(config, seed);
    let wte = tensors.next(v * d);
    let head = (!config.tied).then(|| tensors.next(v * d));
    let adapter = tensors.next(2 * d * d);
    let mut layers = |count: usize| (0..count).map(|_| pack(layer(config, &mut tensors))).collect();
    Weights {
        wte,
        head,
        adapter,
        ln_f: vec![1.0; d],
        prelude: layers(config.prelude_layers),
        core: layers(config.core_layers),
        coda: layers(config.coda_layers),
    }
}

fn layer(config: &ModelConfig, tensors: &mut Tensors) -> LayerWeights {
    let (d, f) = (config.hidden, config.intermediate);
    let norm = || vec![1.0; d];
    LayerWeights {
        norm_1: norm(),
        norm_2: norm(),
        norm_3: norm(),
        norm_4: norm(),
        wqkv: tensors.next(3 * d * d),
        proj: tensors.next(d * d),
        qk_bias: config.qk_bias.then(|| tensors.next(2 * d)),
        fc: tensors.next(2 * f * d),
        mlp_proj: tensors.next(d * f),
    }
}

/// Random tensors, one after the other.
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

    fn next(&mut self, len: usize) -> Vec<f32> {
        let step = self.bound / 2.0_f32.powi(31);
        let mut values = vec![0.0; len];
        for (i, values) in values.chunks_mut(4).enumerate() {
            let words = draw(self.seed, Stream::Weights, self.index, i as u32);
            for (value, word) in values.iter_mut().zip(words) {
                *value = word.cast_signed() as f32 * step;
            }
        }
        self.index += 1;
        values
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

    fn all(seed: u64) -> Weights {
        weights(&TINY.config().unwrap(), seed, |layer| layer)
    }

    #[test]
    fn there_are_as_many_weights_as_the_config_asks_for() {
        let Weights { wte, head, adapter, ln_f, prelude, core, coda } = all(1);
        let layers = [prelude, core, coda].concat();
        let in_layers = layers.iter().map(|layer| {
            let LayerWeights { norm_1, norm_2, norm_3, norm_4, wqkv, proj, qk_bias, fc, mlp_proj } = layer;
            let bias = qk_bias.as_ref().map_or(0, Vec::len);
            [norm_1, norm_2, norm_3, norm_4, wqkv, proj, fc, mlp_proj].map(Vec::len).iter().sum::<usize>()
                + bias
        });
        let count = wte.len() + adapter.len() + ln_f.len() + in_layers.sum::<usize>();
        assert_eq!((count as u64, head), (TINY.config().unwrap().parameters(), None));
    }

    #[test]
    fn weights_have_the_deviation_of_the_models_and_depend_on_the_seed() {
        let config = Shape { hidden: 128, ..TINY }.config().unwrap();
        let adapter = weights(&config, 1, |_| ()).adapter;
        let mean = adapter.iter().sum::<f32>() / adapter.len() as f32;
        let deviation = (adapter.iter().map(|x| x * x).sum::<f32>() / adapter.len() as f32).sqrt();
        let expected = (2.0_f32 / (5.0 * 128.0)).sqrt();
        assert!(mean.abs() < 0.01 * expected && (deviation / expected - 1.0).abs() < 0.01);
        assert_eq!(all(1).adapter, all(1).adapter);
        assert_ne!(all(1).adapter, all(2).adapter);
        assert_ne!(all(1).core[0].proj, all(1).core[1].proj);
    }

    #[test]
    fn impossible_sizes_are_refused_by_name_and_value() {
        let cases = [
            (Shape { hidden: 0, ..TINY }, "hidden is 0: use 1 to 65536"),
            (Shape { heads: 3, ..TINY }, "heads is 3: use a number that divides the width, 16,"),
            (Shape { heads: 16, ..TINY }, "heads is 16: use a number"),
            (Shape { intermediate: 1 << 21, ..TINY }, "intermediate is 2097152: use 1 to 1048576"),
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
