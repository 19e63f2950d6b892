//! Narrow products of many rows, on whatever the machine has.

use std::ops::Range;

use super::dots::{self, Narrow, biased};
use super::geometry::{BLOCK_ROWS, Block, Line, PANEL, Sums};
use super::packed::Scales;
use super::prepared::Prepared;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::cpu::amx::{self, Product as _, Tiles};
use crate::cpu::isa::{Isa, by_isa};

/// Blocks of inputs of a chunk when several strips of rows use the weights.
const CHUNK: usize = 8;

/// One weight's blocks and one launch's rounded inputs.
#[derive(Clone, Copy)]
pub(super) struct BlockProduct<'a> {
    pub(super) isa: Isa,
    pub(super) narrow: Narrow,
    pub(super) inputs: &'a Prepared,
    /// `[panels][depth]`.
    pub(super) weights: &'a [Block],
    pub(super) scales: &'a Scales,
    /// Blocks of a panel.
    pub(super) depth: usize,
}

impl BlockProduct<'_> {
    /// `rows` by `panels`: `sums` is `[panels][stride]`, with `stride` at least the rows rounded up to two blocks of them.
    /// `rows` begin at a block.
    pub(super) fn multiply(
        &self,
        rows: Range<usize>,
        panels: Range<usize>,
        stride: usize,
        sums: &mut [Sums],
    ) {
        let tiles = ThreadTiles::new(self.isa);
        let chunk = if rows.len() <= 2 * BLOCK_ROWS { self.depth.max(1) } else { CHUNK };
        for start in (0..self.depth).step_by(chunk) {
            let blocks = start..self.depth.min(start + chunk);
            for (panel, sums) in panels.clone().zip(sums.chunks_exact_mut(stride)) {
                let next = match (panel + 1 < panels.end, blocks.end < self.depth) {
                    (true, _) => (panel + 1) * self.depth + blocks.start,
                    (false, true) => panels.start * self.depth + blocks.end,
                    (false, false) => panels.end * self.depth,
                };
                let next = &self.weights[next.min(self.weights.len())..];
                let next = Block::lines(&next[..chunk.min(next.len())]);
                self.strips(&tiles, rows.clone(), panel, blocks.clone(), sums, next);
            }
        }
        if self.narrow == Narrow::Int8 {
            for (panel, sums) in panels.zip(sums.chunks_exact_mut(stride)) {
                let outputs = panel * PANEL..(panel + 1) * PANEL;
                let biases = biased(self.isa).then(|| &self.scales.biases[outputs.clone()]);
                let scales = &self.scales.scales[outputs];
                let sums = &mut sums[..rows.len()];
                scale(self.isa, sums, biases, &self.inputs.scales()[rows.clone()], scales);
            }
        }
    }

    /// All rows by some blocks of one panel; `next` are the weights that are used then.
    fn strips(
        &self,
        tiles: &ThreadTiles,
        rows: Range<usize>,
        panel: usize,
        blocks: Range<usize>,
        sums: &mut [Sums],
        next: &[Line],
    ) {
        let weights = &self.weights[panel * self.depth..][blocks.clone()];
        let resume = blocks.start > 0;
        let inputs = |tile: usize| self.inputs.lines(rows.start + tile * BLOCK_ROWS, blocks.clone());
        let count = rows.len().div_ceil(BLOCK_ROWS);
        let share = |done: usize| next.len() * done / count;
        let mut done = 0;
        while done < count {
            let sums = &mut sums[done * BLOCK_ROWS..];
            match tiles {
                #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                ThreadTiles::Some(tiles) if count - done >= 2 => {
                    let (inputs, sums) = ([inputs(done), inputs(done + 1)], first_rows(sums));
                    // A strip that is alone has no time for the next one's weights.
                    let ahead = if count <= 2 { &[] } else { &next[share(done)..share(done + 2)] };
                    match self.narrow {
                        Narrow::Bf16 => amx::Bf16::two_by_four(tiles, inputs, weights, sums, resume, ahead),
                        Narrow::Int8 => amx::Int8::two_by_four(tiles, inputs, weights, sums, resume, ahead),
                    }
                    done += 2;
                }
                #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                ThreadTiles::Some(tiles) => {
                    let (inputs, sums) = (inputs(done), first_rows(sums));
                    match self.narrow {
                        Narrow::Bf16 => amx::Bf16::one_by_four(tiles, inputs, weights, sums, resume),
                        Narrow::Int8 => amx::Int8::one_by_four(tiles, inputs, weights, sums, resume),
                    }
                    done += 1;
                }
                ThreadTiles::None => {
                    let left = rows.len() - done * BLOCK_ROWS;
                    let sums = &mut sums[..left.min(BLOCK_ROWS)];
                    dots::multiply(self.isa, self.narrow, inputs(done), weights, sums, resume);
                    done += 1;
                }
            }
        }
    }
}

/// This thread's tiles, where the instruction set has them.
enum ThreadTiles {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Some(Tiles),
    None,
}

impl ThreadTiles {
    fn new(isa: Isa) -> Self {
        match isa {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Isa::Amx => Self::Some(Tiles::new()),
            _ => Self::None,
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn first_rows<const ROWS: usize>(sums: &mut [Sums]) -> &mut [Sums; ROWS] {
    sums.first_chunk_mut().expect("sums for whole blocks of rows")
}

by_isa!(fn scale = scale_body(
    sums: &mut [Sums], biases: Option<&[i32]>, row_scales: &[f32], output_scales: &[f32],
));

/// Turns i32 sums into f32: what the bias added goes off, then the row's scale and the output's go on.
#[inline(always)]
fn scale_body(sums: &mut [Sums], biases: Option<&[i32]>, row_scales: &[f32], output_scales: &[f32]) {
    for (sums, &row_scale) in sums.iter_mut().zip(row_scales) {
        for (j, (sum, &output_scale)) in sums.0.iter_mut().zip(output_scales).enumerate() {
            let bias = biases.map_or(0, |biases| biases[j]);
            *sum = (sum.to_bits() as i32 - bias) as f32 * row_scale * output_scale;
        }
    }
}
