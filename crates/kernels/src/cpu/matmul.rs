//! Matrix products over packed weights.
//!
//! A weight is cut into panels of [`PANEL`] outputs; inside a panel, the values of one input stand side by side. A tile
//! keeps `ROWS × PANELS × PANEL` sums in registers and walks the inputs once, in order. So each output is one chain of
//! fused multiply-adds over its inputs, whatever the tile, which makes the product batch-invariant.

use rayon::prelude::*;

use super::isa::{Isa, by_isa};
use crate::backend::Rows;

/// Outputs of one panel.
const PANEL: usize = 16;

/// Multiply-adds below which a product stays on the calling thread.
const PARALLEL_FROM: usize = 1 << 20;

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
        let size = self.inputs * PANEL;
        std::array::from_fn(|p| self.panels[(from + p) * size..][..size].as_chunks().0)
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

by_isa!(fn product = product_body(
    input: Input<'_>, weight: &PackedMatrix, out: Output, from: usize, to: usize, accumulate: bool,
));

/// All rows by panels `from..to`.
#[inline(always)]
fn product_body(
    input: Input<'_>,
    weight: &PackedMatrix,
    out: Output,
    from: usize,
    to: usize,
    accumulate: bool,
) {
    let rows = input.rows.len();
    let mut row = 0;
    while row < rows {
        row += match rows - row {
            8.. => strip::<8, 2>(input, weight, out, row, from, to, accumulate),
            4.. => strip::<4, 4>(input, weight, out, row, from, to, accumulate),
            2.. => strip::<2, 4>(input, weight, out, row, from, to, accumulate),
            _ => strip::<1, 4>(input, weight, out, row, from, to, accumulate),
        };
    }
}

/// `R` rows by panels `from..to`, `P` panels at a time. Returns `R`.
#[inline(always)]
fn strip<const R: usize, const P: usize>(
    input: Input<'_>,
    weight: &PackedMatrix,
    out: Output,
    row: usize,
    from: usize,
    to: usize,
    accumulate: bool,
) -> usize {
    let mut panel = from;
    while panel + P <= to {
        tile::<R, P>(input, weight, out, row, panel, accumulate);
        panel += P;
    }
    while panel < to {
        tile::<R, 1>(input, weight, out, row, panel, accumulate);
        panel += 1;
    }
    R
}

#[inline(always)]
fn tile<const R: usize, const P: usize>(
    input: Input<'_>,
    weight: &PackedMatrix,
    out: Output,
    row: usize,
    panel: usize,
    accumulate: bool,
) {
    let inputs: [&[f32]; R] = std::array::from_fn(|r| input.row(row + r));
    let panels = weight.panels::<P>(panel);
    let columns = |p: usize| ((panel + p) * PANEL, PANEL.min(weight.outputs - (panel + p) * PANEL));
    let mut sums = [[[0.0_f32; PANEL]; P]; R];
    if accumulate {
        for (r, sums) in sums.iter_mut().enumerate() {
            for (p, sums) in sums.iter_mut().enumerate() {
                let (column, len) = columns(p);
                sums[..len].copy_from_slice(out.columns(row + r, column, len));
            }
        }
    }
    for k in 0..weight.inputs {
        for r in 0..R {
            let x = inputs[r][k];
            for p in 0..P {
                let w = &panels[p][k];
                for j in 0..PANEL {
                    sums[r][p][j] = x.mul_add(w[j], sums[r][p][j]);
                }
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (p, sums) in sums.iter().enumerate() {
            let (column, len) = columns(p);
            out.columns(row + r, column, len).copy_from_slice(&sums[..len]);
        }
    }
}
