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
    /// How many stages there are.
    pub(super) stages: usize,
    /// The core layers of its stage.
    pub(super) layers: Range<usize>,
    /// By what the stage's ranks find each other where they exchange among themselves; else empty.
    pub(super) group_id: Vec<u8>,
    /// By what it finds the same rank of the stage before and of the next, where they hand rows on by themselves; else empty.
    pub(super) link_ids: [Vec<u8>; 2],
    /// What launches need.
    pub(super) capacity: Capacity,
}

impl Place {
    /// Those of `ranks` ranks in each of these stages, stage by stage, with memory for `capacity`. Stages of several ranks, and links
    /// between several stages, have ids that `new_id` makes.
    pub(super) fn all<E>(
        ranks: usize,
        stages: &[Range<usize>],
        capacity: Capacity,
        mut new_id: impl FnMut() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<Self>, E> {
        let mut id_if = |is_needed: bool| if is_needed { new_id() } else { Ok(Vec::new()) };
        let mut places = Vec::new();
        for layers in stages {
            let group_id = id_if(ranks > 1)?;
            for shard in 0..ranks {
                let link_ids = [Vec::new(), id_if(stages.len() > 1)?];
                let (layers, group_id) = (layers.clone(), group_id.clone());
                let stages = stages.len();
                places.push(Self { ranks, shard, stages, layers, group_id, link_ids, capacity });
            }
        }
        // The link from a rank ends at the same one of the next stage, and that from the last stage at the first.
        for place in 0..places.len() {
            let next = (place + ranks) % places.len();
            places[next].link_ids[0] = places[place].link_ids[1].clone();
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
            nccl_id_before: self.link_ids[0].clone(),
            nccl_id_next: self.link_ids[1].clone(),
            stages: self.stages as u32,
        }
    }

    /// None where the message is of another program.
    pub(super) fn welcomed(welcome: &RankWelcome) -> Option<Self> {
        if welcome.nccl_id_before.is_empty() != welcome.nccl_id_next.is_empty() {
            return None;
        }
        Some(Self {
            ranks: welcome.ranks as usize,
            shard: welcome.shard as usize,
            stages: welcome.stages as usize,
            layers: welcome.first_layer as usize..welcome.end_layer as usize,
            group_id: welcome.nccl_unique_id.clone(),
            link_ids: [&welcome.nccl_id_before, &welcome.nccl_id_next].map(Clone::clone),
            capacity: wire::capacity(welcome.capacity.as_ref()?),
        })
    }

    /// Whether it hands rows on to another by itself.
    pub(super) fn is_linked(&self) -> bool {
        !self.link_ids[1].is_empty()
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
    use std::slice;

    use super::*;

    #[test]
    fn ranks_are_counted_stage_by_stage() {
        let places = places(2, &[0..1, 1..4]);
        let brief: Vec<_> =
            places.iter().map(|place| (place.shard, place.layers.clone(), place.speaks())).collect();
        assert_eq!(brief, [(0, 0..1, false), (1, 0..1, false), (0, 1..4, true), (1, 1..4, false)]);
        assert!(places.iter().all(|place| Place::welcomed(&place.welcome()).as_ref() == Some(place)));
        assert_eq!(Place::welcomed(&RankWelcome::default()), None);
        assert_eq!(Place::welcomed(&RankWelcome { nccl_id_before: vec![], ..places[0].welcome() }), None);
    }

    #[test]
    fn each_rank_is_linked_to_the_same_one_of_the_stages_before_and_behind() {
        let ids = |places: &[Place]| -> Vec<_> {
            let id = |id: &Vec<u8>| id.first().copied();
            places.iter().map(|place| (id(&place.group_id), place.link_ids.each_ref().map(id))).collect()
        };
        assert_eq!(
            ids(&places(2, &[0..1, 1..2, 2..4])),
            [
                (Some(1), [Some(8), Some(2)]),
                (Some(1), [Some(9), Some(3)]),
                (Some(4), [Some(2), Some(5)]),
                (Some(4), [Some(3), Some(6)]),
                (Some(7), [Some(5), Some(8)]),
                (Some(7), [Some(6), Some(9)]),
            ]
        );
        assert_eq!(ids(&places(1, &[0..1, 1..4])), [(None, [Some(2), Some(1)]), (None, [Some(1), Some(2)])]);
        assert_eq!(
            ids(&places(2, slice::from_ref(&(0..4)))),
            [(Some(1), [None, None]), (Some(1), [None, None])]
        );
    }

    /// Places with ids of 1, 2 and so on.
    fn places(ranks: usize, stages: &[Range<usize>]) -> Vec<Place> {
        let mut ids = 0;
        let new_id = || {
            ids += 1;
            Ok::<_, ()>(vec![ids; 128])
        };
        Place::all(ranks, stages, Capacity { rows: 1, latents: 2, blocks: 3 }, new_id).unwrap()
    }
}
