//! Which part of a model each rank of a group has.

use std::ops::Range;

use windlass_model::{LoadError, ModelConfig, Shard};
use windlass_proto::v1::RankWelcome;

/// A rank's part of a model: a shard of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// How many ranks share each product.
    pub(super) ranks: usize,
    /// Which of them this is.
    pub(super) shard: usize,
    /// The core layers of its stage.
    pub(super) layers: Range<usize>,
}

impl Place {
    /// Those of `ranks` ranks in each of these stages, stage by stage.
    pub(super) fn all(ranks: usize, stages: &[Range<usize>]) -> Vec<Self> {
        let of_stage = |layers: &Range<usize>| {
            let layers = layers.clone();
            (0..ranks).map(move |shard| Self { ranks, shard, layers: layers.clone() })
        };
        stages.iter().flat_map(of_stage).collect()
    }

    pub(super) fn welcome(&self) -> RankWelcome {
        RankWelcome {
            ranks: self.ranks as u32,
            nccl_unique_id: Vec::new(),
            shard: self.shard as u32,
            first_layer: self.layers.start as u32,
            end_layer: self.layers.end as u32,
        }
    }

    pub(super) fn welcomed(welcome: &RankWelcome) -> Self {
        Self {
            ranks: welcome.ranks as usize,
            shard: welcome.shard as usize,
            layers: welcome.first_layer as usize..welcome.end_layer as usize,
        }
    }

    /// Whether it is the first rank of a stage that is not the first, and so speaks for it.
    pub(super) fn speaks(&self) -> bool {
        self.shard == 0 && self.layers.start > 0
    }

    /// What is loaded there.
    pub(super) fn part(&self, model: &ModelConfig) -> Result<(Shard, Range<usize>), LoadError> {
        Ok((Shard::all(model, self.ranks)?.swap_remove(self.shard), self.layers.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_counted_stage_by_stage() {
        let places = Place::all(2, &[0..1, 1..4]);
        let brief: Vec<_> =
            places.iter().map(|place| (place.shard, place.layers.clone(), place.speaks())).collect();
        assert_eq!(brief, [(0, 0..1, false), (1, 0..1, false), (0, 1..4, true), (1, 1..4, false)]);
        assert!(places.iter().all(|place| Place::welcomed(&place.welcome()) == *place));
    }
}
