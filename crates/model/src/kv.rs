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
}

impl KvPolicy {
    /// The slot written, and wanted from earlier positions, at depth `i` counted from 0.
    pub fn slot(self, i: Depth) -> u32 {
        match self {
            Self::Full => i,
            Self::Ring(k) => i % k,
        }
    }

    /// How many slots a position has after `depth` iterations.
    pub fn slots(self, depth: Depth) -> u32 {
        match self {
            Self::Full => depth,
            Self::Ring(k) => depth.min(k),
        }
    }
}
