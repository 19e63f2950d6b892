//! What a model takes, and what is left for keys and values.

use anyhow::Result;
use windlass_engine::block_bytes;
use windlass_kernels::{BLOCK_POSITIONS, CudaError, WeightFormat};
use windlass_model::{KvPolicy, ModelFolder};
use windlass_worker::{DevicePlan, WorkerConfig};

use super::report::ModelReport;

/// What `folder`'s model takes as a whole with a worker's default limits, on a GPU or on the processor, and how many positions the rest
/// of `memory_bytes` holds.
pub(super) fn plan(
    folder: &ModelFolder,
    weights: WeightFormat,
    is_on_gpu: bool,
    memory_bytes: Option<u64>,
) -> Result<ModelReport> {
    if is_on_gpu && weights == WeightFormat::Int8 {
        return Err(CudaError::Weights { format: weights }.into());
    }
    let (model, worker) = (folder.config()?, WorkerConfig::new(folder.clone())?);
    let DevicePlan { weight_bytes, row_bytes, spare_bytes, .. } =
        DevicePlan::new(&model, weights, worker.engine.capacity(&model, weights.kv()));
    let block_bytes = block_bytes(&model, weights.kv()) as u64;
    // The processor needs nothing beside.
    let spare_bytes = if is_on_gpu { spare_bytes } else { 0 };
    let kv_bytes = memory_bytes.map(|bytes| bytes.saturating_sub(weight_bytes + row_bytes + spare_bytes));
    let depth = folder.efforts(&model)?.default_policy().max();
    let position_bytes = |kv: KvPolicy| {
        let slots = 1 + u64::from(kv.slots(depth));
        slots * block_bytes / BLOCK_POSITIONS as u64
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
