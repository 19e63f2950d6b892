//! Products of narrow numbers on tiles.

use std::ops::Range;

use super::dots::Narrow;
use super::geometry::{BLOCK_ROWS, Block, Sums};
use super::prepared::Prepared;
use crate::cpu::amx::{self, Product as _, Tiles};

/// Blocks of inputs of a chunk when several strips of rows use the weights.
const CHUNK: usize = 8;
/// The same for at most [`FEW_ROWS`] rows: few enough that all their inputs, the weights and the sums of a chunk stay in the
/// first-level cache, and that the time for fetching is spread over that of multiplying.
const FEW_ROWS_CHUNK: usize = 2;
/// Rows of four tiles.
const FEW_ROWS: usize = 4 * BLOCK_ROWS;
/// How far ahead of use weights are fetched, in blocks.
const AHEAD: usize = 16;

/// One weight's blocks and one launch's rounded inputs.
#[derive(Clone, Copy)]
pub(super) struct TileProduct<'a> {
    pub(super) narrow: Narrow,
    pub(super) inputs: &'a Prepared,
    /// `[panels][depth]`.
    pub(super) weights: &'a [Block],
    /// Blocks of a panel.
    pub(super) depth: usize,
}

impl TileProduct<'_> {
    /// `rows` by one panel, for int8 in i32; `sums` has at least the rows rounded up to two blocks of them. `rows` begin at a block.
    pub(super) fn multiply(&self, tiles: &Tiles, rows: Range<usize>, panel: usize, sums: &mut [Sums]) {
        let chunk = if rows.len() <= BLOCK_ROWS {
            self.depth.max(1)
        } else if rows.len() <= FEW_ROWS {
            FEW_ROWS_CHUNK
        } else {
            CHUNK
        };
        for start in (0..self.depth).step_by(chunk) {
            self.strips(tiles, rows.clone(), panel, start..self.depth.min(start + chunk), sums);
        }
    }

    /// All rows by some blocks of one panel, while others [`AHEAD`] are fetched.
    fn strips(
        &self,
        tiles: &Tiles,
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
            if count - done >= 2 {
                let (inputs, sums) = ([inputs(done), inputs(done + 1)], first_rows(sums));
                let ahead = &ahead[share(done)..share(done + 2)];
                match self.narrow {
                    Narrow::Bf16 => amx::Bf16::two_by_four(tiles, inputs, weights, sums, resume, ahead),
                    Narrow::Int8 => amx::Int8::two_by_four(tiles, inputs, weights, sums, resume, ahead),
                }
                done += 2;
            } else {
                let (inputs, sums) = (inputs(done), first_rows(sums));
                match self.narrow {
                    Narrow::Bf16 => amx::Bf16::one_by_four(tiles, inputs, weights, sums, resume),
                    Narrow::Int8 => amx::Int8::one_by_four(tiles, inputs, weights, sums, resume),
                }
                done += 1;
            }
        }
    }
}

fn first_rows<const ROWS: usize>(sums: &mut [Sums]) -> &mut [Sums; ROWS] {
    sums.first_chunk_mut().expect("sums for whole blocks of rows")
}
