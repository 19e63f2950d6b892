//! Inputs of a product as narrow numbers.

use super::dots::{Narrow, biased};
use super::geometry::{BLOCK_ROWS, GROUPS, InputBlock};
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
    /// `[rows / BLOCK_ROWS][inputs / values of a block]`.
    blocks: Vec<InputBlock>,
    /// Blocks of a row.
    depth: usize,
    /// By row, for int8.
    scales: Vec<f32>,
}

impl Prepared {
    /// Rounds `input`.
    pub(super) fn fill(&mut self, isa: Isa, team: &Team, narrow: Narrow, input: &Input<'_>) {
        let (rows, width) = (input.rows.len(), input.width());
        self.depth = width.div_ceil(narrow.block_inputs());
        let blocks = rows.div_ceil(BLOCK_ROWS) * self.depth;
        if self.blocks.len() < blocks {
            self.blocks.resize(blocks, InputBlock::ZERO);
        }
        if self.scales.len() < rows {
            self.scales.resize(rows, 0.0);
        }
        let depth = self.depth;
        let lines = Disjoint::new(InputBlock::lines(&mut self.blocks));
        let scales = Disjoint::new(&mut self.scales);
        let round = |row: usize| {
            let to = Lines { lines, start: row / BLOCK_ROWS * depth * BLOCK_ROWS + row % BLOCK_ROWS };
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

    /// The blocks of the rows from `BLOCK_ROWS · index` on.
    pub(super) fn blocks(&self, index: usize) -> &[InputBlock] {
        &self.blocks[index * self.depth..][..self.depth]
    }

    /// By row, for int8.
    pub(super) fn scales(&self) -> &[f32] {
        &self.scales
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("blocks", &self.blocks.len()).finish_non_exhaustive()
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
pub(super) struct Lines<'a> {
    lines: Disjoint<'a, [u32; GROUPS]>,
    start: usize,
}

impl Lines<'_> {
    #[inline(always)]
    fn line(&self, block: usize) -> &mut [u32; GROUPS] {
        &mut self.lines.range(self.start + block * BLOCK_ROWS, 1)[0]
    }
}

by_isa!(fn round_bf16 = round_bf16_body(input: &Input<'_>, row: usize, to: Lines<'_>));

#[inline(always)]
fn round_bf16_body(input: &Input<'_>, row: usize, to: Lines<'_>) {
    input.runs::<{ GROUPS * BF16_GROUP }>(row, |block, values| bf16_groups(values, to.line(block)));
}

by_isa!(fn round_int8 = round_int8_body(
    input: &Input<'_>, row: usize, to: Lines<'_>, scale: &mut f32, biased: bool,
));

#[inline(always)]
fn round_int8_body(input: &Input<'_>, row: usize, to: Lines<'_>, scale: &mut f32, biased: bool) {
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
