//! Limits of one engine.

use windlass_model::network::kv_shape;
use windlass_model::{Capacity, ModelConfig};

/// Which rows share a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Rows of any depth share every launch; each leaves when it is done.
    Depth,
    /// Rows start together and wait for the deepest of them: what servers that batch by token do. For comparison.
    Lockstep,
}

/// Limits of one engine. [`EngineConfig::validate`] before use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Sequences served at once.
    pub max_lanes: usize,
    /// Rows of one tick.
    pub max_rows: usize,
    /// Prompt positions of one lane in one tick.
    pub prefill_chunk: usize,
    /// Prompt positions of all lanes in prefill, at most; a longer prompt is refused.
    pub prefill_positions: usize,
    /// Requests that wait for a lane.
    pub max_waiting: usize,
    /// Memory for keys and values, in bytes.
    pub kv_bytes: usize,
    /// Deepest policy accepted.
    pub max_depth: u32,
    /// Which rows share a launch.
    pub schedule: Schedule,
}

/// A configuration that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineConfigError {
    /// A count is zero.
    #[error("{field} is 0: use at least 1")]
    Zero {
        /// The setting.
        field: &'static str,
    },
    /// The K/V budget does not hold the smallest request.
    #[error("kv_bytes {kv_bytes} holds no request: two K/V blocks take {least} bytes, use at least that")]
    KvBytes {
        /// The setting.
        kv_bytes: usize,
        /// What two blocks take: one for prelude and coda, one for the core.
        least: usize,
    },
}

/// Bytes of one K/V block of a model.
pub fn block_bytes(model: &ModelConfig) -> usize {
    kv_shape(model, 1).block_len() * size_of::<f32>()
}

impl EngineConfig {
    /// Checks every limit for this model.
    pub fn validate(&self, model: &ModelConfig) -> Result<(), EngineConfigError> {
        let counts = [
            ("max_lanes", self.max_lanes),
            ("max_rows", self.max_rows),
            ("prefill_chunk", self.prefill_chunk),
            ("prefill_positions", self.prefill_positions),
            ("max_waiting", self.max_waiting),
            ("max_depth", self.max_depth as usize),
        ];
        if let Some((field, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(EngineConfigError::Zero { field });
        }
        let least = 2 * block_bytes(model);
        if self.kv_bytes < least {
            return Err(EngineConfigError::KvBytes { kv_bytes: self.kv_bytes, least });
        }
        Ok(())
    }

    /// The memory these limits ask for.
    pub fn capacity(&self, model: &ModelConfig) -> Capacity {
        Capacity {
            // Lanes that wait in lockstep leave beside a full prefill chunk.
            rows: self.max_rows.saturating_add(self.max_lanes),
            latents: self.prefill_positions.saturating_add(self.max_lanes),
            blocks: self.kv_bytes / block_bytes(model),
        }
    }
}
