//! Inputs of a product as narrow numbers.

use std::ops::Range;

use super::dots::{Narrow, biased};
use super::geometry::{BLOCK_ROWS, GROUPS, Line, Lines};
use super::input::Input;
use super::narrow::{
    BF16_GROUP, INT8_GROUP, bf16_groups, int8_groups, int8_scale, inverse, largest_magnitude,
};
use crate::cpu::disjoint::Disjoint;
use crate::cpu::isa::{Isa, by_isa};
use crate::cpu::team::Team;

/// Values below which rounding stays on the calling thread.
const PARALLEL_FROM: usize = 1 << 16;

/// The rows of one product, rounded once for all threads. Memory is kept for the next product.
#[derive(Default)]
pub(in crate::cpu) struct Prepared {
    /// `[rows / BLOCK_ROWS]` [`Lines`]; the last may have fewer rows.
    lines: Vec<Line>,
    rows: usize,
    /// Blocks of a row.
    depth: usize,
    /// By row, for int8.
    scales: Vec<f32>,
}

impl Prepared {
    /// Rounds `input`.
    pub(super) fn fill(&mut self, isa: Isa, team: &Team, narrow: Narrow, input: &Input<'_>) {
        let (rows, width) = (input.rows.len(), input.width());
        self.rows = rows;
        self.depth = width.div_ceil(narrow.block_inputs());
        let lines = rows * self.depth + BLOCK_ROWS;
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; GROUPS]));
        }
        if self.scales.len() < rows {
            self.scales.resize(rows, 0.0);
        }
        let depth = self.depth;
        let lines = Disjoint::new(&mut self.lines);
        let scales = Disjoint::new(&mut self.scales);
        let round = |row: usize| {
            let first = row / BLOCK_ROWS * BLOCK_ROWS;
            let stride = BLOCK_ROWS.min(rows - first);
            let to = RowLines { lines, start: first * depth + row % BLOCK_ROWS, stride };
            match narrow {
                Narrow::Bf16 => round_bf16(isa, input, row, to),
                Narrow::Int8 => round_int8(isa, input, row, to, &mut scales.range(row, 1)[0], biased(isa)),
            }
        };
        if rows * width < PARALLEL_FROM {
            (0..rows).for_each(round);
        } else {
            team.run(rows, &round);
        }
    }

    /// Some blocks of the rows from `first` on, which is a multiple of [`BLOCK_ROWS`].
    pub(super) fn lines(&self, first: usize, blocks: Range<usize>) -> Lines<'_> {
        let rows = BLOCK_ROWS.min(self.rows - first);
        Lines::new(&self.lines[first * self.depth + blocks.start * rows..], rows, blocks.len())
    }

    /// By row, for int8.
    pub(super) fn scales(&self) -> &[f32] {
        &self.scales
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

impl Narrow {
    /// Inputs of a block.
    pub(super) fn block_inputs(self) -> usize {
        GROUPS
            * match self {
                Self::Bf16 => BF16_GROUP,
                Self::Int8 => INT8_GROUP,
            }
    }
}

/// Where one row's groups go.
#[derive(Clone, Copy)]
pub(super) struct RowLines<'a> {
    lines: Disjoint<'a, Line>,
    start: usize,
    stride: usize,
}

impl RowLines<'_> {
    #[inline(always)]
    fn line(&self, block: usize) -> &mut [u32; GROUPS] {
        &mut self.lines.range(self.start + block * self.stride, 1)[0].0
    }
}

by_isa!(fn round_bf16 = round_bf16_body(input: &Input<'_>, row: usize, to: RowLines<'_>));

#[inline(always)]
fn round_bf16_body(input: &Input<'_>, row: usize, to: RowLines<'_>) {
    input.runs::<{ GROUPS * BF16_GROUP }>(row, |block, values| bf16_groups(values, to.line(block)));
}

by_isa!(fn round_int8 = round_int8_body(
    input: &Input<'_>, row: usize, to: RowLines<'_>, scale: &mut f32, biased: bool,
));

#[inline(always)]
fn round_int8_body(input: &Input<'_>, row: usize, to: RowLines<'_>, scale: &mut f32, biased: bool) {
    const RUN: usize = GROUPS * INT8_GROUP;
    let mut largest = 0.0_f32;
    input.runs::<RUN>(row, |_, values| largest = largest.max(largest_magnitude(values)));
    *scale = int8_scale(largest);
    let inverse = inverse(*scale);
    // Adding 128 to each byte is turning its highest bit.
    let bias = if biased { 0x8080_8080 } else { 0 };
    input.runs::<RUN>(row, |block, values| {
        let line = to.line(block);
        int8_groups(values, inverse, line);
        line.iter_mut().for_each(|group| *group ^= bias);
    });
}
