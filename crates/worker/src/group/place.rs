//! Which part of a model each rank of a group has.

use std::ops::Range;

use windlass_model::{Capacity, LoadError, ModelConfig, Shard};
use windlass_proto::v1::RankWelcome;

use super::wire;

/// A rank's part of a model: a shard of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// How many ranks share each product.
    pub(super) ranks: usize,
    /// Which of them this is.
    pub(super) shard: usize,
    /// The core layers of its stage.
    pub(super) layers: Range<usize>,
    /// By what the stage's ranks find each other where they exchange among themselves; else empty.
    pub(super) group_id: Vec<u8>,
    /// What launches need.
    pub(super) capacity: Capacity,
}

impl Place {
    /// Those of `ranks` ranks in each of these stages, stage by stage, with memory for `capacity`. Stages have the ids that `group_id`
    /// makes.
    pub(super) fn all<E>(
        ranks: usize,
        stages: &[Range<usize>],
        capacity: Capacity,
        mut group_id: impl FnMut() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<Self>, E> {
        let mut places = Vec::new();
        for layers in stages {
            let group_id = group_id()?;
            let place =
                |shard| Self { ranks, shard, layers: layers.clone(), group_id: group_id.clone(), capacity };
            places.extend((0..ranks).map(place));
        }
        Ok(places)
    }

    pub(super) fn welcome(&self) -> RankWelcome {
        RankWelcome {
            ranks: self.ranks as u32,
            nccl_unique_id: self.group_id.clone(),
            shard: self.shard as u32,
            first_layer: self.layers.start as u32,
            end_layer: self.layers.end as u32,
            capacity: Some(wire::capacity_message(self.capacity)),
        }
    }

    /// None where the message is of another program.
    pub(super) fn welcomed(welcome: &RankWelcome) -> Option<Self> {
        Some(Self {
            ranks: welcome.ranks as usize,
            shard: welcome.shard as usize,
            layers: welcome.first_layer as usize..welcome.end_layer as usize,
            group_id: welcome.nccl_unique_id.clone(),
            capacity: wire::capacity(welcome.capacity.as_ref()?),
        })
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
        let mut ids = 0;
        let group_id = || {
            ids += 1;
            Ok::<_, ()>(vec![ids; 128])
        };
        let capacity = Capacity { rows: 1, latents: 2, blocks: 3 };
        let places = Place::all(2, &[0..1, 1..4], capacity, group_id).unwrap();
        let brief: Vec<_> =
            places.iter().map(|place| (place.shard, place.layers.clone(), place.speaks())).collect();
        assert_eq!(brief, [(0, 0..1, false), (1, 0..1, false), (0, 1..4, true), (1, 1..4, false)]);
        assert_eq!(places.iter().map(|place| place.group_id[0]).collect::<Vec<_>>(), [1, 1, 2, 2]);
        assert!(places.iter().all(|place| Place::welcomed(&place.welcome()).as_ref() == Some(place)));
        assert_eq!(Place::welcomed(&RankWelcome::default()), None);
    }
}
