//! Which part of a model a rank holds: some heads, some feed-forward columns, some rows of the head.

use std::ops::Range;

use windlass_kernels::Weight;

use crate::config::ModelConfig;
use crate::weights::LayerWeights;

/// Columns and vocabulary rows are dealt in units of so many, where there are enough: what matrix units and vectors work on.
const UNIT: usize = 64;

/// A number of ranks that the model cannot be split over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tp is {ranks}: use 1 to {heads}, a rank holds at least one of the model's {heads} attention heads")]
pub struct RanksError {
    /// How many were asked for.
    pub ranks: usize,
    /// As many as there can be.
    pub heads: usize,
}

/// A rank's part of a model. The parts of all ranks make up the whole; embedding, adapter and norms are everyone's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Attention heads.
    pub heads: Range<usize>,
    /// Feed-forward columns.
    pub columns: Range<usize>,
    /// Rows of the head.
    pub vocabulary: Range<usize>,
}

impl Shard {
    /// The whole model.
    pub fn whole(config: &ModelConfig) -> Self {
        Self { heads: 0..config.heads, columns: 0..config.intermediate, vocabulary: 0..config.vocabulary }
    }

    /// The parts of `ranks` ranks, by rank, as equal as they come: the first have more where something is left over.
    pub fn all(config: &ModelConfig, ranks: usize) -> Result<Vec<Self>, RanksError> {
        let most = config.heads.min(config.intermediate).min(config.vocabulary);
        if ranks < 1 || ranks > most {
            return Err(RanksError { ranks, heads: most });
        }
        let unit = |count: usize| if count >= UNIT * ranks { UNIT } else { 1 };
        let shard = |rank| Self {
            heads: part(config.heads, 1, rank, ranks),
            columns: part(config.intermediate, unit(config.intermediate), rank, ranks),
            vocabulary: part(config.vocabulary, unit(config.vocabulary), rank, ranks),
        };
        Ok((0..ranks).map(shard).collect())
    }

    /// How many numbers of weights its part of a network holds that has these core layers, without the embedding's table.
    pub fn parameters(&self, config: &ModelConfig, core: &Range<usize>) -> u64 {
        let (hidden, values) = (config.hidden, self.heads.len() * config.head_dim);
        let bias = if config.qk_bias { 2 * values } else { 0 };
        let layer = 4 * hidden * values + 3 * hidden * self.columns.len() + 4 * hidden + bias;
        let (mut layers, mut ends) = (core.len(), 0);
        if core.start == 0 {
            layers += config.prelude_layers;
            ends += 2 * hidden * hidden;
        }
        if core.end == config.core_layers {
            layers += config.coda_layers;
            ends += (1 + self.vocabulary.len()) * hidden;
        }
        (layers * layer + ends) as u64
    }

    /// The part of a whole layer's weights.
    pub(crate) fn of_layer<'a>(&self, weights: LayerWeights<'a>, config: &ModelConfig) -> LayerWeights<'a> {
        let values = self.heads.start * config.head_dim..self.heads.end * config.head_dim;
        LayerWeights {
            wqkv: weights.wqkv.rows_of_each(3, &values),
            proj: weights.proj.columns(&values),
            qk_bias: weights.qk_bias.map(|bias| Weight::of(&bias, 1).rows_of_each(2, &values).to_vec()),
            fc: weights.fc.rows_of_each(2, &self.columns),
            mlp_proj: weights.mlp_proj.columns(&self.columns),
            ..weights
        }
    }
}

/// A rank's part of `count`, in whole units but for the last.
fn part(count: usize, unit: usize, rank: usize, ranks: usize) -> Range<usize> {
    let units = count.div_ceil(unit);
    let start = |rank: usize| ((units / ranks * rank + rank.min(units % ranks)) * unit).min(count);
    start(rank)..start(rank + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::Shape;

    fn huginn() -> ModelConfig {
        Shape::HUGINN.config().unwrap()
    }

    #[test]
    fn parts_make_up_the_whole_and_differ_by_one_unit_at_most() {
        let config = huginn();
        for ranks in 1..=55 {
            let shards = Shard::all(&config, ranks).unwrap();
            let check = |of: fn(&Shard) -> &Range<usize>, count: usize, unit: usize| {
                let parts: Vec<_> = shards.iter().map(of).collect();
                assert!(parts[0].start == 0 && parts[ranks - 1].end == count);
                assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
                let lengths = parts.iter().map(|part| part.len());
                assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() <= unit);
            };
            check(|shard| &shard.heads, 55, 1);
            check(|shard| &shard.columns, 17_920, 64);
            check(|shard| &shard.vocabulary, 65_536, 64);
        }
        let two = Shard::all(&config, 2).unwrap();
        assert_eq!((two[0].heads.len(), two[1].heads.len()), (28, 27));
        assert_eq!(Shard::all(&config, 1).unwrap(), [Shard::whole(&config)]);
    }

    #[test]
    fn more_ranks_than_heads_are_refused_by_name_and_value() {
        for ranks in [0, 56] {
            let message = Shard::all(&huginn(), ranks).unwrap_err().to_string();
            assert!(message.starts_with(&format!("tp is {ranks}: use 1 to 55,")), "{message}");
        }
    }
}
