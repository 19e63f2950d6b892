//! Activations in memory.

use super::disjoint::Disjoint;

/// f32 `[capacity, width]`, row-major.
#[derive(Debug)]
pub struct CpuBuffer {
    data: Vec<f32>,
    width: usize,
}

impl CpuBuffer {
    /// Zeroed.
    pub(super) fn new(capacity: usize, width: usize) -> Self {
        Self { data: vec![0.0; capacity * width], width }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// How many rows there is room for.
    pub(super) fn rows(&self) -> usize {
        self.data.len().checked_div(self.width).unwrap_or(0)
    }

    pub(super) fn data(&self) -> &[f32] {
        &self.data
    }

    pub(super) fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    #[inline(always)]
    pub(super) fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.width..][..self.width]
    }
}

/// The rows of a buffer, for the parts of one job to write: no two of them the same row, as [`Marks`](super::marks::Marks) makes
/// sure of where rows are named.
pub(super) struct RowsOf<'a> {
    data: Disjoint<'a, f32>,
    width: usize,
}

impl<'a> RowsOf<'a> {
    pub(super) fn new(buffer: &'a mut CpuBuffer) -> Self {
        Self { width: buffer.width, data: Disjoint::new(&mut buffer.data) }
    }

    pub(super) fn row(&self, i: usize) -> &mut [f32] {
        self.data.range(i * self.width, self.width)
    }
}
