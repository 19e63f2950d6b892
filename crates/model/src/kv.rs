//! K/V policies: which slot a core layer's keys and values live in.

use serde::{Deserialize, Serialize};

use crate::depth::Depth;

/// Which K/V slot a core layer writes at depth i, counted from 0.
///
/// Reading at depth i a position that was written at D depths takes slot `min(slot(i), slots(D) - 1)`: the slot the
/// reader itself writes, or the highest one written where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvPolicy {
    /// Slot i.
    Full,
    /// Slot i mod k, with k at least 1.
    Ring(u32),
    /// Slot i below depth a, with a at least 1, and slot a from there on.
    Anchor(u32),
}

impl KvPolicy {
    /// The slot written, and wanted from earlier positions, at depth `i` counted from 0.
    pub fn slot(self, i: Depth) -> u32 {
        match self {
            Self::Full => i,
            Self::Ring(k) => i % k,
            Self::Anchor(a) => i.min(a),
        }
    }

    /// How many slots a position has after `depth` iterations.
    pub fn slots(self, depth: Depth) -> u32 {
        match self {
            Self::Full => depth,
            Self::Ring(k) => depth.min(k),
            Self::Anchor(a) => depth.min(a.saturating_add(1)),
        }
    }

    /// Whether a position that takes `depth` iterations overwrites a slot it wrote before. If not, who reads the position
    /// later reads what those read that moved beside it.
    pub fn overwrites(self, depth: Depth) -> bool {
        self.slots(depth) < depth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_written_is_counted_and_no_other() {
        for policy in
            [KvPolicy::Full, KvPolicy::Ring(1), KvPolicy::Ring(3), KvPolicy::Anchor(1), KvPolicy::Anchor(4)]
        {
            for depth in 1..12 {
                let mut written: Vec<u32> = (0..depth).map(|i| policy.slot(i)).collect();
                assert_eq!(policy.overwrites(depth), {
                    written.sort_unstable();
                    written.dedup();
                    written.len() < depth as usize
                });
                assert_eq!(
                    written,
                    (0..policy.slots(depth)).collect::<Vec<_>>(),
                    "{policy:?} at depth {depth}"
                );
            }
        }
    }

    #[test]
    fn an_anchor_keeps_early_depths_and_reuses_one_slot_after() {
        assert_eq!([0, 1, 2, 3, 9].map(|i| KvPolicy::Anchor(2).slot(i)), [0, 1, 2, 2, 2]);
    }
}
