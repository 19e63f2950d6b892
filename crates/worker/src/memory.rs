//! Whether what the limits ask for fits this machine.

use std::ops::Range;

use windlass_kernels::KvFormat;
use windlass_model::{Capacity, LoadError, ModelConfig, Shard};

use crate::error::WorkerError;

/// Tells the log what each stage takes beside its weights, and checks that all of it fits: a stage with few core layers has
/// blocks of as many layers as prelude and coda have, so together they can take more than one device would.
pub(crate) fn plan_stages(
    (capacity, kv): (&Capacity, KvFormat),
    model: &ModelConfig,
    tp: usize,
    stages: &[Range<usize>],
) -> Result<(), WorkerError> {
    let shards = Shard::all(model, tp).map_err(LoadError::from)?;
    let mut needed = 0_u64;
    for (stage, core) in stages.iter().enumerate() {
        let of_shard = |shard| capacity.part_bytes(model, (shard, core), kv);
        let parcels = capacity.parcel_bytes(model, stages.len()).saturating_mul(tp as u64);
        let bytes = shards.iter().map(of_shard).fold(parcels, u64::saturating_add);
        needed = needed.saturating_add(bytes);
        tracing::info!(stage, of = stages.len(), core_layers = ?core, bytes, "stage is planned, without its weights");
    }
    check(needed)
}

/// Refuses what is more than the machine has.
pub(crate) fn check(needed: u64) -> Result<(), WorkerError> {
    match machine_memory().filter(|total| needed > *total) {
        Some(total) => Err(WorkerError::Memory { needed, total }),
        None => Ok(()),
    }
}

/// Bytes of memory this machine has, where it says so.
fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}
