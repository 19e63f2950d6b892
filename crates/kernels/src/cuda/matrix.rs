//! Weights in the layouts that the products read.

use super::bytes::bytes;
use super::device::{Argument, Device};
use super::queue::{Kept, Queue};

/// Outputs of a tile.
const TILE_OUTPUTS: usize = 8;
/// Inputs that a product adds at a time.
pub(super) const STEP_INPUTS: usize = 32;
/// Lanes of a warp.
const LANES: usize = 32;
/// Warps that may share the chunks of an output.
const CHUNK_WARPS: usize = 8;
/// Steps of a chunk at most.
const MOST_CHUNK_STEPS: usize = 16;

/// How the values of weights, and of keys and values, are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    F32,
    Bf16,
}

impl Values {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// A weight on a device.
#[derive(Debug)]
pub struct CudaMatrix<D: Device> {
    memory: Kept<D>,
    /// Rows of the weight; of a gated one those of both halves, a gate before its up.
    pub(super) rows: usize,
    pub(super) inputs: usize,
}

impl<D: Device> CudaMatrix<D> {
    /// Row-major `[rows, inputs]`, of which row i is row `source(i)` of `weight`.
    pub(super) fn pack(
        device: &Queue<D>,
        values: Values,
        weight: &[f32],
        (rows, inputs): (usize, usize),
        source: impl Fn(usize) -> usize,
    ) -> Self {
        assert_eq!(weight.len(), rows * inputs, "weight is not [{rows}, {inputs}]");
        let row = |i: usize| &weight[source(i) * inputs..][..inputs];
        let memory = match values {
            Values::F32 => {
                let packed: Vec<f32> = (0..rows).flat_map(|i| row(i).iter().copied()).collect();
                upload(device, bytes(&packed))
            }
            Values::Bf16 => upload(device, bytes(&pack_bf16(rows, inputs, row))),
        };
        Self { memory, rows, inputs }
    }

    pub(super) fn start(&self) -> Argument {
        Argument::start(&self.memory)
    }

    /// Steps of 32 inputs.
    pub(super) fn steps(&self) -> usize {
        self.inputs.div_ceil(STEP_INPUTS)
    }

    /// Steps of a chunk: so many that the warps that share chunks have equally many. Decides the order of sums, so it depends
    /// on the weight alone.
    pub(super) fn chunk_steps(&self) -> usize {
        let rounds = self.steps().div_ceil(CHUNK_WARPS * MOST_CHUNK_STEPS);
        self.steps().div_ceil(CHUNK_WARPS * rounds)
    }
}

fn upload<D: Device>(device: &Queue<D>, bytes: &[u8]) -> Kept<D> {
    let memory = device.allocate(bytes.len());
    device.upload(bytes, &memory);
    memory
}

/// `[8 outputs][32 inputs][lane][8 values]`, of which each word has two: lane 4g + t holds output g at inputs 8t to 8t + 7.
/// Zero beyond the last output and input.
fn pack_bf16<'a>(rows: usize, inputs: usize, row: impl Fn(usize) -> &'a [f32]) -> Vec<u32> {
    let (tiles, steps) = (rows.div_ceil(TILE_OUTPUTS), inputs.div_ceil(STEP_INPUTS));
    let mut packed = vec![0; tiles * steps * LANES * 4];
    for (i, row) in (0..rows).map(row).enumerate() {
        let tile = &mut packed[i / TILE_OUTPUTS * steps * LANES * 4..];
        for (eight, values) in row.chunks(8).enumerate() {
            let lane = i % TILE_OUTPUTS * 4 + eight % 4;
            let words = &mut tile[(eight / 4 * LANES + lane) * 4..][..4];
            for (word, pair) in words.iter_mut().zip(values.chunks(2)) {
                *word = bf16_bits(pair[0]) | bf16_bits(pair.get(1).copied().unwrap_or(0.0)) << 16;
            }
        }
    }
    packed
}

/// To the nearest, ties to even; a NaN stays one.
fn bf16_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    if value.is_nan() { bits >> 16 | 0x40 } else { bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16 }
}
