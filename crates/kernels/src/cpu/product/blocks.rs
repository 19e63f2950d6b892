//! Narrow products of many rows, on whatever the machine has.

use std::ops::Range;

use super::dots::{self, Narrow, biased};
use super::geometry::{BLOCK_ROWS, Block, PANEL, Sums};
use super::packed::Scales;
use super::prepared::Prepared;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::cpu::amx::{self, Product as _, Tiles};
use crate::cpu::isa::{Isa, by_isa};

/// Blocks of inputs of a chunk when several strips of rows use the weights.
const CHUNK: usize = 8;
/// The same for at most [`FEW_ROWS`] rows on tiles: few enough that all their inputs, the weights and the sums of a chunk stay in the
/// first-level cache, and that the time for fetching is spread over that of multiplying.
const FEW_ROWS_CHUNK: usize = 2;
/// Rows of four tiles.
const FEW_ROWS: usize = 4 * BLOCK_ROWS;
/// How far ahead of use weights are fetched, in blocks.
const AHEAD: usize = 16;

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
    /// `rows` by one panel; `sums` has at least the rows rounded up to two blocks of them. `rows` begin at a block.
    pub(super) fn multiply(&self, tiles: &ThreadTiles, rows: Range<usize>, panel: usize, sums: &mut [Sums]) {
        let chunk = match (self.isa, rows.len()) {
            (_, 0..=BLOCK_ROWS) => self.depth.max(1),
            (Isa::Amx, 0..=FEW_ROWS) => FEW_ROWS_CHUNK,
            _ => CHUNK,
        };
        for start in (0..self.depth).step_by(chunk) {
            self.strips(tiles, rows.clone(), panel, start..self.depth.min(start + chunk), sums);
        }
        if self.narrow == Narrow::Int8 {
            let outputs = panel * PANEL..(panel + 1) * PANEL;
            let biases = biased(self.isa).then(|| &self.scales.biases[outputs.clone()]);
            let scales = &self.scales.scales[outputs];
            let sums = &mut sums[..rows.len()];
            scale(self.isa, sums, biases, &self.inputs.scales()[rows], scales);
        }
    }

    /// All rows by some blocks of one panel, while others [`AHEAD`] are fetched.
    fn strips(
        &self,
        tiles: &ThreadTiles,
        rows: Range<usize>,
        panel: usize,
        blocks: Range<usize>,
        sums: &mut [Sums],
    ) {
        let (weights, following) = self.weights[panel * self.depth + blocks.start..].split_at(blocks.len());
        let ahead = &following[following.len().min(AHEAD.saturating_sub(blocks.len()))..];
        let ahead = Block::lines(&ahead[..ahead.len().min(blocks.len())]);
        let resume = blocks.start > 0;
        let inputs = |tile: usize| self.inputs.lines(rows.start + tile * BLOCK_ROWS, blocks.clone());
        let count = rows.len().div_ceil(BLOCK_ROWS);
        let share = |done: usize| ahead.len() * done / count;
        let mut done = 0;
        while done < count {
            let sums = &mut sums[done * BLOCK_ROWS..];
            match tiles {
                #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                ThreadTiles::Some(tiles) if count - done >= 2 => {
                    let (inputs, sums) = ([inputs(done), inputs(done + 1)], first_rows(sums));
                    let ahead = &ahead[share(done)..share(done + 2)];
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
pub(super) enum ThreadTiles {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Some(Tiles),
    None,
}

impl ThreadTiles {
    pub(super) fn new(isa: Isa) -> Self {
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
