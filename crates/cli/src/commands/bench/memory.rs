//! Whether a measurement fits this machine's memory.

use std::fs;

use anyhow::{Result, bail};
use windlass_engine::EngineConfig;
use windlass_kernels::WeightFormat;
use windlass_model::{ModelConfig, Shard};

/// Refuses what needs more memory than is free, for so many models at once, each split into `shards`: packed weights, what every rank has
/// of its own (embedding in f32, adapter, rows), keys and values. On a system that does not say how much is free, refuses nothing.
pub(super) fn check(
    model: &ModelConfig,
    (models, shards): (usize, &[Shard]),
    remedy: &str,
    format: WeightFormat,
    config: &EngineConfig,
) -> Result<()> {
    let Some(free) = free_memory() else { return Ok(()) };
    let (ranks, hidden, capacity) =
        (shards.len() as u64, model.hidden as u64, config.capacity(model, format.kv()));
    let adapters = (ranks - 1) * 2 * hidden * hidden;
    let weights =
        format.bytes() * (model.parameters() + adapters) + ranks * 4 * model.vocabulary as u64 * hidden;
    let workspace =
        shards.iter().fold(0_u64, |sum, shard| sum.saturating_add(capacity.bytes(model, shard, format.kv())));
    let [weights, workspace] = [weights, workspace].map(|bytes| bytes.saturating_mul(models as u64));
    let lanes = config.max_lanes;
    if weights.saturating_add(workspace) > free {
        let [weights, workspace, free] = [weights, workspace, free].map(|bytes| bytes as f64 / 1e9);
        bail!(
            "lanes is {lanes}: weights take {weights:.1} GB, and keys and values with the rest {workspace:.1} GB, but \
             {free:.1} GB of memory are free: use {remedy}"
        );
    }
    Ok(())
}

/// Bytes that programs can still use, where the system says so.
pub(crate) fn free_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}
