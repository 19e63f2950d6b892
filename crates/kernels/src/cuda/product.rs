//! Products: inputs are laid out, then multiplied in the shape of launch that suits their number. All shapes give a row the
//! same bits.

use super::device::{Argument, Device, Grid, Kernel};
use super::matrix::{CudaMatrix, Values};
use super::{Cuda, CudaBuffer, Scratch};
use crate::backend::Rows;

/// Threads of a block that lays inputs out.
const PREPARE_THREADS: usize = 256;

/// What a product reads: rows of one buffer, or of two side by side.
pub(super) struct Input<'a, D: Device> {
    pub(super) first: &'a CudaBuffer<D>,
    pub(super) second: Option<&'a CudaBuffer<D>>,
    pub(super) rows: Rows<'a>,
}

impl<D: Device> Input<'_, D> {
    fn width(&self) -> usize {
        self.first.width + self.second.map_or(0, |second| second.width)
    }

    fn capacity(&self) -> usize {
        self.second.map_or(usize::MAX, |second| second.capacity).min(self.first.capacity)
    }
}

/// What becomes of the outputs, in the order of a shape's kernels.
#[derive(Debug, Clone, Copy)]
pub(super) enum Epilogue {
    Store,
    Gate,
    Largest,
}

/// A shape of launch, as the kernels are compiled for it.
struct Shape {
    /// Rows of a block.
    rows: usize,
    /// Outputs of a block.
    outputs: usize,
    kernels: [Kernel; 3],
}

const NARROW: Shape = Shape {
    rows: 16,
    outputs: 16,
    kernels: [Kernel::NarrowStore, Kernel::NarrowGate, Kernel::NarrowLargest],
};
const MEDIUM: Shape = Shape {
    rows: 64,
    outputs: 32,
    kernels: [Kernel::MediumStore, Kernel::MediumGate, Kernel::MediumLargest],
};
const WIDE: Shape =
    Shape { rows: 128, outputs: 128, kernels: [Kernel::WideStore, Kernel::WideGate, Kernel::WideLargest] };
const F32: Shape =
    Shape { rows: 32, outputs: 32, kernels: [Kernel::F32Store, Kernel::F32Gate, Kernel::F32Largest] };

impl Shape {
    fn of(values: Values, rows: usize) -> Self {
        match (values, rows) {
            (Values::F32, _) => F32,
            (Values::Bf16, ..=16) => NARROW,
            (Values::Bf16, ..=64) => MEDIUM,
            (Values::Bf16, _) => WIDE,
        }
    }
}

impl<D: Device> Cuda<D> {
    /// Multiplies `input` by `weight`; `out` is what `epilogue` writes to, for as many rows and outputs.
    pub(super) fn multiply(
        &self,
        scratch: &mut Scratch<D>,
        input: &Input<'_, D>,
        weight: &CudaMatrix<D>,
        epilogue: Epilogue,
        out: Argument,
    ) {
        assert_eq!(input.width(), weight.inputs, "input width and weight differ");
        let rows = input.rows.len();
        if rows == 0 {
            return;
        }
        let inputs = self.prepare(scratch, input);
        let shape = Shape::of(self.values, rows);
        let grid = Grid { x: rows.div_ceil(shape.rows), y: weight.rows.div_ceil(shape.outputs) };
        let [row_count, outputs, input_count, steps, chunk_steps] =
            [rows, weight.rows, weight.inputs, weight.steps(), weight.chunk_steps()].map(Argument::count);
        let kernel = shape.kernels[epilogue as usize];
        match self.values {
            Values::F32 => {
                self.run(kernel, grid, &[inputs, weight.start(), row_count, outputs, input_count, out]);
            }
            Values::Bf16 => {
                let arguments = [inputs, weight.start(), row_count, outputs, steps, chunk_steps, out];
                self.run(kernel, grid, &arguments);
            }
        }
    }

    /// Lays the rows out as the products read them.
    fn prepare(&self, scratch: &mut Scratch<D>, input: &Input<'_, D>) -> Argument {
        let (rows, inputs) = (input.rows.len(), input.width());
        let indices = scratch.rows(&self.device, input.rows, input.capacity());
        // Memory grows with rows alone, since that is the same on all ranks: for the widest inputs there are.
        let most_inputs = scratch.most_inputs.max(inputs);
        let (kernel, threads, most_bytes) = match self.values {
            Values::F32 => (Kernel::PrepareF32, rows * inputs, 4 * rows.next_power_of_two() * most_inputs),
            Values::Bf16 => {
                // Sixteen bytes of a half of sixteen rows at 32 inputs, for each lane.
                let lanes = |rows: usize, inputs: usize| {
                    rows.div_ceil(16) * inputs.div_ceil(super::matrix::STEP_INPUTS) * 64
                };
                let most = lanes(rows.next_power_of_two(), most_inputs);
                (Kernel::PrepareBf16, lanes(rows, inputs), 16 * most)
            }
        };
        let out = Argument::start(scratch.inputs.reserve(&self.device, most_bytes));
        let second = input.second.map_or(Argument::NULL, |second| Argument::start(&second.memory));
        let [width, inputs, rows] = [input.first.width, inputs, rows].map(Argument::count);
        let arguments = [Argument::start(&input.first.memory), second, indices, width, inputs, rows, out];
        self.run(kernel, Grid::of(threads.div_ceil(PREPARE_THREADS)), &arguments);
        out
    }

    /// Runs a kernel of which every argument was checked.
    #[expect(unsafe_code, reason = "a kernel believes the addresses it is given")]
    pub(super) fn run(&self, kernel: Kernel, grid: Grid, arguments: &[Argument]) {
        // SAFETY: only operations call this, each with the arguments that its kernel declares, in their order. They come from
        // memory of this device that holds as many rows of the width as the grid and the counts say, which the operation has
        // asserted; lists of rows and blocks were checked against what they point into.
        unsafe { self.device.launch(kernel, grid, arguments) }
    }
}
