//! Activations, keys and values on a device.

use super::device::{Argument, Memory};
use crate::kv::KvShape;

/// Activations on a device, f32 `[capacity, width]`.
#[derive(Debug)]
pub struct CudaBuffer<M> {
    pub(super) memory: M,
    pub(super) capacity: usize,
    pub(super) width: usize,
}

/// Keys and values on a device, `[blocks][layers][keys, values][heads][BLOCK_POSITIONS][head_dim]`.
#[derive(Debug)]
pub struct CudaCache<M> {
    pub(super) memory: M,
    pub(super) shape: KvShape,
}

impl<M: Memory> CudaBuffer<M> {
    pub(super) fn start(&self) -> Argument {
        Argument::start(&self.memory)
    }

    /// Asserts that it has `rows` rows of `width`.
    pub(super) fn check(&self, rows: usize, width: usize) {
        assert_eq!(self.width, width, "a buffer's width differs");
        assert!(rows <= self.capacity, "{rows} rows of a buffer of {}", self.capacity);
    }
}

impl<M: Memory> CudaCache<M> {
    pub(super) fn width(&self) -> usize {
        self.shape.heads * self.shape.head_dim
    }

    /// What kernels take of its shape.
    pub(super) fn arguments(&self, layer: usize) -> [Argument; 4] {
        let KvShape { layers, heads, head_dim, .. } = self.shape;
        assert!(layer < layers, "layer {layer} of {layers}");
        [layers, layer, heads, head_dim].map(Argument::count)
    }
}
