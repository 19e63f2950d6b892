//! Keys and values over paged blocks.

use super::disjoint::Disjoint;
use super::pages::Pages;
use crate::kv::{BLOCK_POSITIONS, KvShape};

/// All blocks, `[blocks][layers][keys, values][heads][BLOCK_POSITIONS][head_dim]`.
#[derive(Debug)]
pub struct KvCache {
    data: Pages<f32>,
    shape: KvShape,
}

impl KvCache {
    pub(super) fn new(shape: KvShape) -> Self {
        Self { data: Pages::new(shape.blocks * shape.block_len()), shape }
    }

    pub(super) fn shape(&self) -> KvShape {
        self.shape
    }

    pub(super) fn data(&self) -> &[f32] {
        &self.data
    }

    /// The cache for the parts of one job to write: no two of them the same position of a block and layer.
    pub(super) fn writer(&mut self) -> KvWriter<'_> {
        KvWriter { shape: self.shape, data: Disjoint::new(&mut self.data) }
    }
}

/// Writes single positions.
pub(super) struct KvWriter<'a> {
    data: Disjoint<'a, f32>,
    shape: KvShape,
}

impl KvWriter<'_> {
    /// Writes one position's keys and values (`[heads · head_dim]` each) into `block`.
    pub(super) fn store(&self, block: usize, position: usize, layer: usize, keys: &[f32], values: &[f32]) {
        let head_dim = self.shape.head_dim;
        let mut at = self.shape.keys_at(block, layer) + position % BLOCK_POSITIONS * head_dim;
        for (keys, values) in keys.chunks_exact(head_dim).zip(values.chunks_exact(head_dim)) {
            self.data.range(at, head_dim).copy_from_slice(keys);
            self.data.range(at + self.shape.side_len(), head_dim).copy_from_slice(values);
            at += BLOCK_POSITIONS * head_dim;
        }
    }
}
