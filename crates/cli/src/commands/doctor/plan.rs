//! What a model takes, and what is left for keys and values.

use anyhow::Result;
use windlass_kernels::{BLOCK_POSITIONS, WeightFormat};
use windlass_model::{KvPolicy, ModelFolder};
use windlass_worker::{DevicePlan, WorkerConfig};

use super::report::ModelReport;

/// What `folder`'s model takes with a worker's default limits, and how many positions the rest of `free_bytes` holds.
pub(super) fn plan(
    folder: &ModelFolder,
    weights: WeightFormat,
    free_bytes: Option<u64>,
) -> Result<ModelReport> {
    let (model, worker) = (folder.config()?, WorkerConfig::new(folder.clone())?);
    let DevicePlan { weight_bytes, row_bytes, spare_bytes, .. } =
        DevicePlan::new(&model, weights, worker.engine.capacity(&model));
    let kv_bytes = free_bytes.map(|free| free.saturating_sub(weight_bytes + row_bytes + spare_bytes));
    let depth = folder.efforts(&model)?.default_policy().max();
    let position_bytes = |kv: KvPolicy| {
        let slots = 1 + u64::from(kv.slots(depth));
        slots * DevicePlan::block_bytes(&model, weights) / BLOCK_POSITIONS as u64
    };
    let [full, ring] = [KvPolicy::Full, KvPolicy::Ring(1)].map(position_bytes);
    Ok(ModelReport {
        name: folder.name(),
        parameters: model.parameters(),
        weights: weights.to_string(),
        weight_bytes,
        row_bytes,
        depth,
        position_bytes_full: full,
        position_bytes_ring_1: ring,
        positions_full: kv_bytes.map(|bytes| bytes / full),
        positions_ring_1: kv_bytes.map(|bytes| bytes / ring),
    })
}
