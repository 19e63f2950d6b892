//! What a model and its limits take of GPUs' memory.

use std::ops::Range;

use windlass_kernels::WeightFormat;
use windlass_model::{Capacity, ModelConfig, RanksError, Shard};

/// What is left free on a device, and how much more in a group.
const SPARE_BYTES: [u64; 2] = [256 << 20, 768 << 20];

/// Bytes on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DevicePlan {
    /// Weights, and the tables of the embedding and of rotations.
    pub weight_bytes: u64,
    /// Keys and values.
    pub kv_bytes: u64,
    /// Latents, activations, logits, and rows on their way to the next stage.
    pub row_bytes: u64,
    /// What ranks add up and join.
    pub group_bytes: u64,
    /// What is left free for graphs, NCCL and inputs of products, of which nobody tells beforehand how much they take: a guess.
    pub spare_bytes: u64,
}

/// A GPU that a plan is too large for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{needed} bytes are needed and {free} are free on device {device} of cuda_devices")]
pub struct DeviceShortage {
    /// As the driver counts.
    pub device: usize,
    /// What the plan says.
    pub needed: u64,
    /// What there is.
    pub free: u64,
}

impl DevicePlan {
    /// What `model` takes on one device with memory of `capacity`.
    pub fn new(model: &ModelConfig, weights: WeightFormat, capacity: Capacity) -> Self {
        Self::of_part(model, weights, capacity, 1, &(Shard::whole(model), 0..model.core_layers))
    }

    /// What each device takes of a model that is split over `ranks` in each of `stages`, which are its core layers; stage by stage,
    /// by rank.
    pub fn of_split(
        model: &ModelConfig,
        weights: WeightFormat,
        capacity: Capacity,
        (ranks, stages): (usize, &[Range<usize>]),
    ) -> Result<Vec<Self>, RanksError> {
        let shards = Shard::all(model, ranks)?;
        let parts = stages.iter().flat_map(|core| shards.iter().map(|shard| (shard.clone(), core.clone())));
        let plan = |part| {
            let plan = Self::of_part(model, weights, capacity, ranks, &part);
            let row_bytes = plan.row_bytes.saturating_add(capacity.parcel_bytes(model, stages.len()));
            Self { row_bytes, ..plan }
        };
        Ok(parts.map(plan).collect())
    }

    /// What a device takes that is one of `ranks` and has a shard of these core layers, and of what comes with them.
    pub(crate) fn of_part(
        model: &ModelConfig,
        weights: WeightFormat,
        capacity: Capacity,
        ranks: usize,
        (shard, core): &(Shard, Range<usize>),
    ) -> Self {
        let table = if core.start == 0 { 4 * (model.vocabulary * model.hidden) as u64 } else { 0 };
        let rotations = 4 * (model.context_length * model.head_dim) as u64;
        let bytes = |capacity: Capacity| capacity.part_bytes(model, (shard, core), weights.kv());
        let row_bytes = bytes(Capacity { blocks: 0, ..capacity });
        Self {
            weight_bytes: weights.bytes() * shard.parameters(model, core) + table + rotations,
            kv_bytes: bytes(capacity) - row_bytes,
            row_bytes,
            group_bytes: if ranks > 1 { group_bytes(model, capacity.rows, ranks, (shard, core)) } else { 0 },
            spare_bytes: SPARE_BYTES[..ranks.min(2)].iter().sum(),
        }
    }

    /// The same linked to devices of other processes in a ring of so many stages: with rows on their way from there and to there.
    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn linked(self, model: &ModelConfig, capacity: Capacity, stages: usize) -> Self {
        let row_bytes = self.row_bytes.saturating_add(capacity.parcel_bytes(model, stages + 2));
        Self { row_bytes, spare_bytes: SPARE_BYTES.iter().sum(), ..self }
    }

    /// All of it.
    pub fn total_bytes(&self) -> u64 {
        [self.kv_bytes, self.row_bytes, self.group_bytes, self.spare_bytes]
            .into_iter()
            .fold(self.weight_bytes, u64::saturating_add)
    }

    /// Refuses plans that are too large for `devices`, each with its number and the bytes that are free there.
    pub fn check(plans: &[Self], devices: &[(usize, u64)]) -> Result<(), DeviceShortage> {
        let needed = plans.iter().map(Self::total_bytes);
        let mut devices = needed.zip(devices);
        match devices.find(|(needed, (_, free))| needed > free) {
            Some((needed, &(device, free))) => Err(DeviceShortage { device, needed, free }),
            None => Ok(()),
        }
    }
}

/// What every rank has of a sum, or of logits, on one of them: memory that grows by doubling, and keeps what it has outgrown.
fn group_bytes(
    model: &ModelConfig,
    rows: usize,
    ranks: usize,
    (shard, core): (&Shard, &Range<usize>),
) -> u64 {
    let values = |count: usize| (4 * count as u64).saturating_mul(rows as u64);
    let grown = |bytes: u64| bytes.checked_next_power_of_two().unwrap_or(u64::MAX).saturating_mul(2);
    let sums = values(ranks * model.hidden);
    if core.end < model.core_layers {
        return grown(sums);
    }
    // Of each as much as the first has, which has most, where its own are put first.
    let widest = Shard::all(model, ranks).map_or(0, |shards| shards[0].vocabulary.len());
    let parts = grown(sums.max(values(ranks * widest)));
    let own = grown(values(widest));
    // The first has all logits.
    let all = if shard.vocabulary.start == 0 { values(model.vocabulary) } else { 0 };
    parts.saturating_add(own).saturating_add(all)
}

#[cfg(test)]
mod tests {
    use std::slice;

    use windlass_engine::block_bytes;
    use windlass_kernels::KvFormat;
    use windlass_model::synthetic::Shape;

    use super::*;

    #[test]
    fn the_published_model_takes_what_its_shape_says() {
        let model = Shape::HUGINN.config().unwrap();
        // A token under ring(1) takes 8 layers, 169 kB; a block has 16 tokens of 4 layers.
        let block = block_bytes(&model, KvFormat::Bf16) as u64;
        assert_eq!(block, 16 * 4 * 2 * 5280 * 2);
        let plan = DevicePlan::new(&model, WeightFormat::Bf16, Capacity { rows: 1, latents: 1, blocks: 100 });
        assert_eq!(plan.kv_bytes, 100 * block);
        assert!((8_000_000_000..9_000_000_000).contains(&plan.weight_bytes), "{}", plan.weight_bytes);
    }

    #[test]
    fn the_parts_of_a_model_take_what_the_whole_does_and_what_each_needs_of_its_own() {
        let model = Shape::HUGINN.config().unwrap();
        let capacity = Capacity { rows: 64, latents: 64, blocks: 100 };
        let whole = DevicePlan::new(&model, WeightFormat::Bf16, capacity);
        let of = |ranks, stages: &[Range<usize>]| {
            DevicePlan::of_split(&model, WeightFormat::Bf16, capacity, (ranks, stages)).unwrap()
        };
        let sum = |plans: &[DevicePlan], of: fn(&DevicePlan) -> u64| plans.iter().map(of).sum::<u64>();
        assert_eq!(of(1, slice::from_ref(&(0..4))), [whole]);
        let stages = of(1, &[0..2, 2..4]);
        let rotations = 4 * (model.context_length * model.head_dim) as u64;
        assert_eq!(sum(&stages, |plan| plan.weight_bytes), whole.weight_bytes + rotations);
        // On each two launches' rows can be on their way, latents are at both ends, and whether a latent has stopped is everywhere.
        let (hidden, stopped) = (64 * 4 * model.hidden as u64, 64 * 4);
        let (ways, latents) = (2 * 2 * hidden, hidden + stopped);
        let scratch =
            64 * 4 * (3 * model.hidden + 4 * model.heads * model.head_dim + model.intermediate) as u64;
        assert_eq!(sum(&stages, |plan| plan.row_bytes), whole.row_bytes + ways + latents + scratch);
        let ranks = of(2, slice::from_ref(&(0..4)));
        // 55 heads are 28 and 27.
        assert!(ranks[0].kv_bytes > ranks[1].kv_bytes);
        assert_eq!(sum(&ranks, |plan| plan.kv_bytes), whole.kv_bytes);
        // Each has embedding, adapter, norms and rotations.
        let hidden = model.hidden as u64;
        let twice = 4 * model.vocabulary as u64 * hidden
            + 2 * (2 * hidden * hidden + (4 * 8 + 1) * hidden)
            + rotations;
        assert_eq!(sum(&ranks, |plan| plan.weight_bytes), whole.weight_bytes + twice);
        assert_eq!(of(2, &[0..2, 2..4]).len(), 4);
        // Each 64 rows of both ranks' logits and of its own, and what was outgrown before, the first all logits once more.
        let logits = 4 * 64 * model.vocabulary as u64;
        let group_bytes = [whole, ranks[0], ranks[1]].map(|plan| plan.group_bytes);
        assert_eq!(group_bytes, [0, 3 * logits + logits, 3 * logits]);
        assert!(ranks[0].spare_bytes > whole.spare_bytes);
        // Two launches' rows on their way from one neighbour, and all of them to the other.
        let linked = whole.linked(&model, capacity, 3);
        assert_eq!(linked.row_bytes, whole.row_bytes + 5 * 64 * 4 * model.hidden as u64);
        assert_eq!(linked.spare_bytes, ranks[0].spare_bytes);
    }

    #[test]
    fn a_device_that_is_too_small_is_named() {
        let plan = |kv_bytes| DevicePlan {
            weight_bytes: 10,
            kv_bytes,
            row_bytes: 1,
            group_bytes: 0,
            spare_bytes: 3,
        };
        let plans = [plan(5), plan(6)];
        assert_eq!(DevicePlan::check(&plans, &[(4, 19), (7, 20)]), Ok(()));
        let error = DevicePlan::check(&plans, &[(4, 19), (7, 19)]).unwrap_err();
        assert_eq!(error.to_string(), "20 bytes are needed and 19 are free on device 7 of cuda_devices");
    }
}
