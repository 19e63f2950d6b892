//! Activations, keys and values on a device.

use std::marker::PhantomData;

use super::device::{Argument, Device};
use super::queue::{Kept, Queue};
use crate::kv::KvShape;
use crate::report::Reported;

/// Activations on a device, f32 `[capacity, width]`.
#[derive(Debug)]
pub struct CudaBuffer<D: Device> {
    pub(super) memory: Kept<D>,
    pub(super) capacity: usize,
    pub(super) width: usize,
}

/// Keys and values on a device, `[blocks][layers][keys, values][heads][BLOCK_POSITIONS][head_dim]`, values in bf16 by dimension: see `kv.cuh`.
#[derive(Debug)]
pub struct CudaCache<D: Device> {
    pub(super) memory: Kept<D>,
    pub(super) shape: KvShape,
}

/// Rows on their way to another device, f32 `[rows, width]`.
#[derive(Debug)]
pub struct CudaParcel<D: Device> {
    pub(super) parcel: D::Parcel,
    /// Of how many rows there is room for all values.
    pub(super) capacity: usize,
    pub(super) width: usize,
    /// How many are on their way.
    pub(super) rows: usize,
}

/// What operations have to say, on its way to the host.
#[derive(Debug)]
pub struct CudaReport<D: Device, T> {
    landing: D::Landing,
    /// Of how many values it is; without any nothing is on its way.
    values: usize,
    of: PhantomData<T>,
}

impl<D: Device, T: Reported> CudaReport<D, T> {
    /// One that says nothing, with room for so many values.
    pub(super) fn new(device: &Queue<D>, values: usize) -> Self {
        Self { landing: device.landing(T::BYTES * values), values: 0, of: PhantomData }
    }

    /// Says nothing.
    pub(super) fn clear(&mut self) {
        self.values = 0;
    }

    /// Has the device send so many values.
    pub(super) fn send(&mut self, device: &Queue<D>, from: &Kept<D>, values: usize) {
        self.values = values;
        device.send(from, T::BYTES * values, &mut self.landing);
    }

    /// Puts what was sent behind what is in `to`, and says nothing more.
    pub(super) fn take(&mut self, device: &Queue<D>, to: &mut Vec<T>) {
        if std::mem::take(&mut self.values) > 0 {
            to.extend(device.landed(&mut self.landing).chunks_exact(T::BYTES).map(T::from_bytes));
        }
    }
}

impl<D: Device> CudaBuffer<D> {
    pub(super) fn start(&self) -> Argument {
        Argument::start(&self.memory)
    }

    /// Asserts that it has `rows` rows of `width`.
    pub(super) fn check(&self, rows: usize, width: usize) {
        assert_eq!(self.width, width, "a buffer's width differs");
        assert!(rows <= self.capacity, "{rows} rows of a buffer of {}", self.capacity);
    }
}

impl<D: Device> CudaCache<D> {
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
