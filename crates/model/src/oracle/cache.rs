//! Keys and values of one sequence, in plain vectors.

use crate::config::ModelConfig;
use crate::kv::KvPolicy;

/// Keys and values of one sequence in all layers.
#[derive(Debug, Clone)]
pub struct OracleCache {
    pub(super) kv: KvPolicy,
    pub(super) prelude: Vec<LayerCache>,
    pub(super) core: Vec<LayerCache>,
    pub(super) coda: Vec<LayerCache>,
}

/// Keys and values of one layer: by position, then by slot.
#[derive(Debug, Clone, Default)]
pub(super) struct LayerCache {
    positions: Vec<Vec<KeyValue>>,
}

/// One position's key and value in one slot, each [heads, head_dim].
#[derive(Debug, Clone)]
pub(super) struct KeyValue {
    pub(super) key: Vec<f32>,
    pub(super) value: Vec<f32>,
}

impl OracleCache {
    pub(super) fn new(config: &ModelConfig, kv: KvPolicy) -> Self {
        let layers = |count| vec![LayerCache::default(); count];
        Self {
            kv,
            prelude: layers(config.prelude_layers),
            core: layers(config.core_layers),
            coda: layers(config.coda_layers),
        }
    }
}

impl LayerCache {
    /// Writes a slot anew, or the next one of a position, or the first of the next position.
    pub(super) fn write(&mut self, position: usize, slot: u32, entry: KeyValue) {
        assert!(position <= self.positions.len(), "positions come in order");
        if position == self.positions.len() {
            self.positions.push(Vec::new());
        }
        let slots = &mut self.positions[position];
        let slot = slot as usize;
        assert!(slot <= slots.len(), "slots are first written in order");
        if slot == slots.len() {
            slots.push(entry);
        } else {
            slots[slot] = entry;
        }
    }

    /// What a reader at `slot` sees of positions 0 to `last`: that slot, or the highest written where it never
    /// was. Keys and values, each [last + 1, heads, head_dim].
    pub(super) fn read(&self, last: usize, slot: u32) -> (Vec<f32>, Vec<f32>) {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for slots in &self.positions[..=last] {
            let entry = &slots[(slot as usize).min(slots.len() - 1)];
            keys.extend_from_slice(&entry.key);
            values.extend_from_slice(&entry.value);
        }
        (keys, values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(x: f32) -> KeyValue {
        KeyValue { key: vec![x], value: vec![-x] }
    }

    #[test]
    fn a_position_that_stopped_early_is_read_at_its_highest_slot() {
        let mut cache = LayerCache::default();
        (0..2).for_each(|slot| cache.write(0, slot, entry(slot as f32)));
        (0..4).for_each(|slot| cache.write(1, slot, entry(10.0 + slot as f32)));
        assert_eq!(cache.read(1, 3), (vec![1.0, 13.0], vec![-1.0, -13.0]));
        assert_eq!(cache.read(1, 0).0, [0.0, 10.0]);
        assert_eq!(cache.read(0, 1).0, [1.0]);
    }

    #[test]
    fn a_slot_written_again_holds_the_last_value() {
        let mut cache = LayerCache::default();
        (0..5).for_each(|depth| cache.write(0, KvPolicy::Ring(2).slot(depth), entry(depth as f32)));
        assert_eq!((cache.read(0, 0).0, cache.read(0, 1).0), (vec![4.0], vec![3.0]));
    }
}
