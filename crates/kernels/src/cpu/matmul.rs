//! Matrix products over packed weights.
//!
//! A weight is cut into panels of [`PANEL`] outputs; inside a panel, the values of one input stand side by side. A tile
//! keeps `ROWS × PANELS × PANEL` sums in registers and walks the inputs once, in order. So each output is one chain of
//! fused multiply-adds over its inputs, whatever the tile, which makes the product batch-invariant.

use rayon::prelude::*;

use super::isa::{Isa, by_isa};
use super::simd::{LANES, Simd};
use crate::backend::Rows;

/// Outputs of one panel.
const PANEL: usize = LANES;

/// Multiply-adds below which a product stays on the calling thread.
const PARALLEL_FROM: usize = 1 << 23;

/// A weight `[outputs, inputs]` as panels `[outputs / PANEL][inputs][PANEL]`, padded with zeros.
#[derive(Debug)]
pub struct PackedMatrix {
    panels: Vec<f32>,
    outputs: usize,
    inputs: usize,
}

impl PackedMatrix {
    /// Packs row-major `[outputs, inputs]`.
    pub(super) fn pack(weight: &[f32], outputs: usize, inputs: usize) -> Self {
        assert_eq!(weight.len(), outputs * inputs, "weight is not [{outputs}, {inputs}]");
        let mut panels = vec![0.0; outputs.div_ceil(PANEL) * inputs * PANEL];
        for (output, row) in weight.chunks_exact(inputs).enumerate() {
            let panel = &mut panels[output / PANEL * inputs * PANEL..];
            for (input, &value) in row.iter().enumerate() {
                panel[input * PANEL + output % PANEL] = value;
            }
        }
        Self { panels, outputs, inputs }
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Panels `from..from + P`, each `[inputs][PANEL]`.
    #[inline(always)]
    fn panels<const P: usize>(&self, from: usize) -> [&[[f32; PANEL]]; P] {
        let (inputs, _) = self.panels.as_chunks();
        std::array::from_fn(|p| &inputs[(from + p) * self.inputs..][..self.inputs])
    }
}

/// Rows an operation reads from a row-major buffer.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) data: &'a [f32],
    pub(super) width: usize,
    pub(super) rows: Rows<'a>,
}

impl<'a> Input<'a> {
    #[inline(always)]
    pub(super) fn row(&self, i: usize) -> &'a [f32] {
        &self.data[self.rows.index(i) * self.width..][..self.width]
    }
}

/// The output, `[rows, width]`, written by several threads in disjoint columns.
#[derive(Clone, Copy)]
pub(super) struct Output {
    data: *mut f32,
    rows: usize,
    width: usize,
}

#[expect(unsafe_code, reason = "threads write disjoint columns of one buffer")]
// SAFETY: tasks of one product own disjoint column ranges, so no value is touched by two threads.
unsafe impl Send for Output {}
#[expect(unsafe_code, reason = "as above")]
// SAFETY: as above.
unsafe impl Sync for Output {}

impl Output {
    /// The columns `column..column + len` of `row`.
    #[expect(unsafe_code, clippy::mut_from_ref, reason = "the disjoint columns of this type")]
    #[inline(always)]
    fn columns(&self, row: usize, column: usize, len: usize) -> &mut [f32] {
        assert!(row < self.rows && column + len <= self.width, "column range outside the output");
        // SAFETY: the range is inside the buffer (checked above) and belongs to the calling task alone.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.width + column), len) }
    }
}

/// `out[i] (+)= weight · input[i]`; `accumulate` goes on from what `out` holds.
pub(super) fn matmul(
    (isa, pool): (Isa, &rayon::ThreadPool),
    input: Input<'_>,
    weight: &PackedMatrix,
    out: &mut [f32],
    accumulate: bool,
) {
    let rows = input.rows.len();
    assert_eq!(input.width, weight.inputs, "input width and weight differ");
    assert!(out.len() >= rows * weight.outputs, "output too small");
    let out = Output { data: out.as_mut_ptr(), rows, width: weight.outputs };
    let panels = weight.outputs.div_ceil(PANEL);
    let threads = pool.current_num_threads();
    if threads == 1 || rows * weight.panels.len() < PARALLEL_FROM {
        return product(isa, input, weight, out, 0, panels, accumulate);
    }
    let share = panels.div_ceil(threads);
    pool.install(|| {
        (0..panels).into_par_iter().step_by(share).for_each(|from| {
            product(isa, input, weight, out, from, panels.min(from + share), accumulate);
        });
    });
}

by_isa!(fn product<S> = product_body(
    input: Input<'_>, weight: &PackedMatrix, out: Output, from: usize, to: usize, accumulate: bool,
));

/// All rows by panels `from..to`.
#[inline(always)]
fn product_body<S: Simd>(
    simd: S,
    input: Input<'_>,
    weight: &PackedMatrix,
    out: Output,
    from: usize,
    to: usize,
    accumulate: bool,
) {
    let product = Product { simd, input, weight, out, accumulate };
    let rows = input.rows.len();
    let mut row = 0;
    while row < rows {
        row += match rows - row {
            8.. if S::REGISTERS >= 16 => product.strip::<8, 2>(row, from, to),
            4.. if S::REGISTERS >= 16 => product.strip::<4, 4>(row, from, to),
            4.. => product.strip::<4, 1>(row, from, to),
            2.. => product.strip::<2, 2>(row, from, to),
            _ => product.strip::<1, 4>(row, from, to),
        };
    }
}

/// One thread's part of a product.
struct Product<'a, S> {
    simd: S,
    input: Input<'a>,
    weight: &'a PackedMatrix,
    out: Output,
    accumulate: bool,
}

impl<S: Simd> Product<'_, S> {
    /// Rows `row..row + R` by panels `from..to`, `P` panels at a time. Returns `R`.
    #[inline(always)]
    fn strip<const R: usize, const P: usize>(&self, row: usize, from: usize, to: usize) -> usize {
        let mut panel = from;
        while panel + P <= to {
            self.tile::<R, P>(row, panel);
            panel += P;
        }
        while panel < to {
            self.tile::<R, 1>(row, panel);
            panel += 1;
        }
        R
    }

    #[inline(always)]
    fn tile<const R: usize, const P: usize>(&self, row: usize, panel: usize) {
        let simd = self.simd;
        // Slices of one length, so that the loop over it needs no bounds checks.
        let length = self.weight.inputs;
        let inputs: [&[f32]; R] = std::array::from_fn(|r| &self.input.row(row + r)[..length]);
        let panels = self.weight.panels::<P>(panel);
        let mut sums = [[simd.splat(0.0); P]; R];
        if self.accumulate {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (p, sum) in sums.iter_mut().enumerate() {
                    let mut values = [0.0; PANEL];
                    let columns = self.columns(row + r, panel + p);
                    values[..columns.len()].copy_from_slice(columns);
                    *sum = simd.load(&values);
                }
            }
        }
        for k in 0..length {
            let weights: [_; P] = std::array::from_fn(|p| simd.load(&panels[p][k]));
            for r in 0..R {
                let x = simd.splat(inputs[r][k]);
                for p in 0..P {
                    sums[r][p] = simd.mul_add(x, weights[p], sums[r][p]);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (p, sum) in sums.into_iter().enumerate() {
                let mut values = [0.0; PANEL];
                simd.store(sum, &mut values);
                let columns = self.columns(row + r, panel + p);
                columns.copy_from_slice(&values[..columns.len()]);
            }
        }
    }

    /// The outputs of `panel` in `row`; fewer than a panel's at the right edge.
    #[inline(always)]
    fn columns(&self, row: usize, panel: usize) -> &mut [f32] {
        let column = panel * PANEL;
        self.out.columns(row, column, PANEL.min(self.weight.outputs - column))
    }
}
