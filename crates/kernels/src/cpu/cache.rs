//! Keys and values over paged blocks.

use super::disjoint::Disjoint;
use super::isa::{Isa, by_isa};
use super::pages::{FromZeros, Pages};
use super::product::to_bf16;
use super::simd::{LANES, Simd};
use crate::kv::{BLOCK_POSITIONS, KvFormat, KvShape};

/// All blocks, `[blocks][layers][keys, values][heads][BLOCK_POSITIONS][head_dim]`.
#[derive(Debug)]
pub struct KvCache {
    data: Data,
    shape: KvShape,
}

/// See [`KvFormat`].
#[derive(Debug)]
pub(super) enum Data {
    F32(Pages<f32>),
    Bf16(Pages<u16>),
}

/// A key's or value's number as it is stored.
pub(super) trait Stored: FromZeros {
    fn load<S: Simd>(simd: S, from: &[Self; LANES]) -> S::Vector;
    fn to_f32(self) -> f32;
}

impl Stored for f32 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[Self; LANES]) -> S::Vector {
        simd.load(from)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

/// The bits of a bf16.
impl Stored for u16 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[Self; LANES]) -> S::Vector {
        simd.load_bf16(from)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }
}

impl KvCache {
    pub(super) fn new(format: KvFormat, shape: KvShape) -> Self {
        let len = shape.blocks * shape.block_len();
        let data = match format {
            KvFormat::F32 => Data::F32(Pages::new(len)),
            KvFormat::Bf16 => Data::Bf16(Pages::new(len)),
        };
        Self { data, shape }
    }

    pub(super) fn shape(&self) -> KvShape {
        self.shape
    }

    pub(super) fn data(&self) -> &Data {
        &self.data
    }

    /// The cache for the parts of one job to write: no two of them the same position of a block and layer.
    pub(super) fn writer(&mut self) -> KvWriter<'_> {
        let data = match &mut self.data {
            Data::F32(data) => WriterData::F32(Disjoint::new(data)),
            Data::Bf16(data) => WriterData::Bf16(Disjoint::new(data)),
        };
        KvWriter { shape: self.shape, data }
    }
}

/// Writes single positions.
pub(super) struct KvWriter<'a> {
    data: WriterData<'a>,
    shape: KvShape,
}

enum WriterData<'a> {
    F32(Disjoint<'a, f32>),
    Bf16(Disjoint<'a, u16>),
}

impl KvWriter<'_> {
    /// Writes one position's keys and values (`[heads · head_dim]` each) into `block`.
    pub(super) fn store(
        &self,
        isa: Isa,
        (block, position): (usize, usize),
        layer: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        let head_dim = self.shape.head_dim;
        let mut at = self.shape.keys_at(block, layer) + position % BLOCK_POSITIONS * head_dim;
        for (keys, values) in keys.chunks_exact(head_dim).zip(values.chunks_exact(head_dim)) {
            for (at, numbers) in [(at, keys), (at + self.shape.side_len(), values)] {
                match &self.data {
                    WriterData::F32(data) => data.range(at, head_dim).copy_from_slice(numbers),
                    WriterData::Bf16(data) => round(isa, numbers, data.range(at, head_dim)),
                }
            }
            at += BLOCK_POSITIONS * head_dim;
        }
    }
}

by_isa!(fn round = round_body(from: &[f32], to: &mut [u16]));

#[inline(always)]
fn round_body(from: &[f32], to: &mut [u16]) {
    for (from, to) in from.iter().zip(to) {
        *to = to_bf16(*from);
    }
}
