//! Activations, keys and values on a device.

use std::marker::PhantomData;

use super::device::{Argument, Device, Memory};
use crate::kv::KvShape;
use crate::report::Reported;

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

/// What operations have to say, on its way to the host.
#[derive(Debug)]
pub struct CudaReport<L, T> {
    landing: L,
    /// Of how many values it is; without any nothing is on its way.
    values: usize,
    of: PhantomData<T>,
}

impl<L, T: Reported> CudaReport<L, T> {
    /// One that says nothing, with room for so many values.
    pub(super) fn new<D: Device<Landing = L>>(device: &D, values: usize) -> Self {
        Self { landing: device.landing(T::BYTES * values), values: 0, of: PhantomData }
    }

    /// Says nothing.
    pub(super) fn clear(&mut self) {
        self.values = 0;
    }

    /// Has the device send so many values.
    pub(super) fn send<D: Device<Landing = L>>(&mut self, device: &D, from: &D::Memory, values: usize) {
        self.values = values;
        device.send(from, T::BYTES * values, &mut self.landing);
    }

    /// Puts what was sent behind what is in `to`, and says nothing more.
    pub(super) fn take<D: Device<Landing = L>>(&mut self, device: &D, to: &mut Vec<T>) {
        if std::mem::take(&mut self.values) > 0 {
            to.extend(device.landed(&mut self.landing).chunks_exact(T::BYTES).map(T::from_bytes));
        }
    }
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
