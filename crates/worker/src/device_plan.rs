//! What a model and its limits take of a GPU's memory.

use windlass_engine::block_bytes;
use windlass_kernels::WeightFormat;
use windlass_model::{Capacity, ModelConfig, Shard};

/// Bytes on a GPU. Keys and values are stored as weights are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DevicePlan {
    /// Weights, and the embedding's table.
    pub weight_bytes: u64,
    /// Keys and values.
    pub kv_bytes: u64,
    /// Latents, activations and logits.
    pub row_bytes: u64,
}

impl DevicePlan {
    /// What `model` takes with memory of `capacity`.
    pub fn new(model: &ModelConfig, weights: WeightFormat, capacity: Capacity) -> Self {
        let table = 4 * (model.vocabulary * model.hidden) as u64;
        Self {
            weight_bytes: weights.bytes() * model.parameters() + table,
            kv_bytes: capacity.blocks as u64 * Self::block_bytes(model, weights),
            row_bytes: Capacity { blocks: 0, ..capacity }.bytes(model, &Shard::whole(model)),
        }
    }

    /// Bytes of a K/V block.
    pub fn block_bytes(model: &ModelConfig, weights: WeightFormat) -> u64 {
        // `block_bytes` reckons with f32.
        block_bytes(model) as u64 / WeightFormat::F32.bytes() * weights.bytes()
    }

    /// All of it.
    pub fn total_bytes(&self) -> u64 {
        self.weight_bytes + self.kv_bytes + self.row_bytes
    }
}

#[cfg(test)]
mod tests {
    use windlass_model::synthetic::Shape;

    use super::*;

    #[test]
    fn the_published_model_takes_what_its_shape_says() {
        let model = Shape::HUGINN.config().unwrap();
        // A token under ring(1) takes 8 layers, 169 kB; a block has 16 tokens of 4 layers.
        let block = DevicePlan::block_bytes(&model, WeightFormat::Bf16);
        assert_eq!(block, 16 * 4 * 2 * 5280 * 2);
        let plan = DevicePlan::new(&model, WeightFormat::Bf16, Capacity { rows: 1, latents: 1, blocks: 100 });
        assert_eq!(plan.kv_bytes, 100 * block);
        assert!((8_000_000_000..9_000_000_000).contains(&plan.weight_bytes), "{}", plan.weight_bytes);
    }
}
