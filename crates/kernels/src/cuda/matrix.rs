//! Weights in the layouts that the products read.
#![expect(unsafe_code, reason = "asks the device for work")]

use super::device::{Argument, Device, Grid, Kernel};
use super::queue::{Kept, Queue};
use crate::weight::{Stored, Weight};

/// Outputs of a tile.
const TILE_OUTPUTS: usize = 8;
/// Inputs that a product adds at a time.
pub(super) const STEP_INPUTS: usize = 32;
/// Warps that may share the chunks of an output.
const CHUNK_WARPS: usize = 8;
/// Steps of a chunk at most.
const MOST_CHUNK_STEPS: usize = 16;
/// Bytes of stored rows that go to a device at a time.
const SLICE_BYTES: usize = 4 << 20;

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

    /// Of a packed weight.
    fn packed_bytes(self, rows: usize, inputs: usize) -> usize {
        match self {
            Self::F32 => 4 * rows * inputs,
            Self::Bf16 => 2 * rows.next_multiple_of(TILE_OUTPUTS) * inputs.next_multiple_of(STEP_INPUTS),
        }
    }

    fn packs(self) -> Kernel {
        match self {
            Self::F32 => Kernel::PackF32,
            Self::Bf16 => Kernel::PackBf16,
        }
    }
}

/// Which row stands where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// As stored.
    Given,
    /// Stored are all gates, then their ups; packed is each gate before its up.
    GatesAndUps,
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
    /// Sends rows as they are stored, a slice at a time, each of which a kernel puts in place.
    pub(super) fn pack(device: &Queue<D>, values: Values, weight: &Weight<'_>, order: Order) -> Self {
        let (rows, inputs) = (weight.rows(), weight.width());
        let memory = device.allocate(values.packed_bytes(rows, inputs));
        let row_bytes = inputs * weight.values().bytes();
        let at_once = (SLICE_BYTES / row_bytes.max(1)).clamp(1, rows.max(1));
        let slice = device.allocate(at_once * row_bytes);
        let gates = if order == Order::GatesAndUps { rows / 2 } else { 0 };
        let mut gathered = Vec::new();
        for first in (0..rows).step_by(at_once) {
            let sent = first..rows.min(first + at_once);
            let stored = weight.in_one_piece(&sent).unwrap_or_else(|| {
                gathered.clear();
                sent.clone().for_each(|row| gathered.extend_from_slice(weight.row(row)));
                &gathered
            });
            device.upload(stored, &slice);
            let arguments = [
                Argument::start(&slice),
                Argument::count(stored_type(weight.values())),
                Argument::count(inputs),
                Argument::count(first),
                Argument::count(gates),
                Argument::start(&memory),
            ];
            // SAFETY: `slice` has the rows of the grid, `inputs` each, and `memory` has a place for every row of the weight.
            unsafe { device.launch(values.packs(), Grid::of(sent.len()), &arguments) };
        }
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

/// As `pack.cu` numbers them.
fn stored_type(values: Stored) -> usize {
    match values {
        Stored::F32 => 0,
        Stored::F16 => 1,
        Stored::Bf16 => 2,
    }
}
