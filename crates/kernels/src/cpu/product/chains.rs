//! Products in f32: each sum is one chain of fused multiply-adds over the inputs, in order.
//!
//! A tile keeps the sums of up to six rows by a panel in registers and walks a chunk of the inputs once. Chunks
//! follow one another and go on from the sums of the last, so neither the tile nor the chunk changes a bit.

use std::ops::Range;

use super::geometry::{Step, Sums, VECTORS};
use super::input::Input;
use crate::cpu::isa::by_isa;
use crate::cpu::simd::Simd;

/// Inputs of a chunk when several strips of rows use the weights: they stay in the second-level cache between strips.
const CHUNK: usize = 256;
/// Rows of a tile at most, with 32 registers.
const WIDE_ROWS: usize = 6;
/// Rows of a tile at most, with 16 registers of half the size.
const NARROW_ROWS: usize = 4;

by_isa!(fn multiply<S> = multiply_body(
    input: &Input<'_>, rows: Range<usize>, panel: &[Step], following: &[Step], sums: &mut [Sums],
));

/// `sums[i] = panel · input[rows][i]`. `following` is what memory holds after the panel, fetched ahead of use.
#[inline(always)]
fn multiply_body<S: Simd>(
    simd: S,
    input: &Input<'_>,
    rows: Range<usize>,
    panel: &[Step],
    following: &[Step],
    sums: &mut [Sums],
) {
    let most = if S::WIDE { WIDE_ROWS } else { NARROW_ROWS };
    let strips = rows.len().div_ceil(most);
    let mut start = 0;
    while start < panel.len() {
        let end = input.part_end(start).min(start + CHUNK);
        let mut done = 0;
        for strip in 0..strips {
            let count = (rows.len() - done).div_ceil(strips - strip);
            let chunk = Chunk {
                simd,
                input,
                first_row: rows.start + done,
                columns: start..end,
                panel,
                ahead: ahead(panel, following, start..end, strip, strips),
            };
            let sums = &mut sums[done..done + count];
            match count {
                1 => chunk.strip::<1>(sums),
                2 => chunk.strip::<2>(sums),
                3 => chunk.strip::<3>(sums),
                4 => chunk.strip::<4>(sums),
                5 => chunk.strip::<5>(sums),
                _ => chunk.strip::<6>(sums),
            }
            done += count;
        }
        start = end;
    }
}

/// The share of strip `strip` of the next chunk's weights, to be fetched while this one is multiplied.
#[inline(always)]
fn ahead<'a>(
    panel: &'a [Step],
    following: &'a [Step],
    chunk: Range<usize>,
    strip: usize,
    strips: usize,
) -> &'a [Step] {
    let next = if chunk.end < panel.len() { &panel[chunk.end..] } else { following };
    let len = chunk.len().min(next.len());
    &next[strip * len / strips..(strip + 1) * len / strips]
}

/// One chunk of inputs for one strip of rows.
struct Chunk<'a, S> {
    simd: S,
    input: &'a Input<'a>,
    first_row: usize,
    columns: Range<usize>,
    panel: &'a [Step],
    ahead: &'a [Step],
}

impl<S: Simd> Chunk<'_, S> {
    /// `R` rows by the whole panel, in tiles that fit the registers.
    #[inline(always)]
    fn strip<const R: usize>(&self, sums: &mut [Sums]) {
        let sums: &mut [Sums; R] = sums.try_into().expect("as many sums as rows");
        // Loops, no iterators' closures: instructions of an ISA are inlined only into what is compiled for it.
        if S::WIDE || R == 1 {
            self.tile::<R, 4>(0, sums);
        } else if R == 2 {
            for vector in [0, 2] {
                self.tile::<R, 2>(vector, sums);
            }
        } else {
            for vector in 0..VECTORS {
                self.tile::<R, 1>(vector, sums);
            }
        }
    }

    /// `R` rows by `V` vectors of the panel, from `vector` on.
    #[expect(clippy::needless_range_loop, reason = "one index for several arrays of known length")]
    #[inline(always)]
    fn tile<const R: usize, const V: usize>(&self, vector: usize, sums: &mut [Sums; R]) {
        const { assert!(V <= VECTORS) };
        let simd = self.simd;
        let steps = &self.panel[self.columns.clone()];
        let inputs: [&[f32]; R] =
            std::array::from_fn(|r| self.input.columns(self.first_row + r, self.columns.clone()));
        // Slices of one length, so that the loop over it needs no bounds checks.
        let inputs: [&[f32]; R] = std::array::from_fn(|r| &inputs[r][..steps.len()]);
        let mut tile = [[simd.splat(0.0); V]; R];
        if self.columns.start > 0 {
            for (tile, sums) in tile.iter_mut().zip(sums.iter_mut()) {
                for (v, sum) in tile.iter_mut().enumerate() {
                    *sum = simd.load(&sums.vectors()[vector + v]);
                }
            }
        }
        // No more at a time than it takes, so that fetching does not get in the way: half a step where strips share it.
        let is_shared = self.ahead.len() < steps.len();
        let fetching = if is_shared { 2 * self.ahead.len() } else { self.ahead.len() }.min(steps.len());
        if is_shared {
            for k in 0..fetching {
                let half = k % 2 * (VECTORS / 2);
                let ahead = &self.ahead[k / 2].0;
                simd.fetch(&ahead[half]);
                simd.fetch(&ahead[half + 1]);
                add_step(simd, &steps[k], vector, &inputs, k, &mut tile);
            }
        } else {
            for k in 0..fetching {
                for line in &self.ahead[k].0 {
                    simd.fetch(line);
                }
                add_step(simd, &steps[k], vector, &inputs, k, &mut tile);
            }
        }
        for k in fetching..steps.len() {
            add_step(simd, &steps[k], vector, &inputs, k, &mut tile);
        }
        for (tile, sums) in tile.iter().zip(sums) {
            for (v, &sum) in tile.iter().enumerate() {
                simd.store(sum, &mut sums.vectors()[vector + v]);
            }
        }
    }
}

/// Adds one input's products to a tile of sums.
#[expect(clippy::needless_range_loop, reason = "one index for several arrays of known length")]
#[inline(always)]
fn add_step<S: Simd, const R: usize, const V: usize>(
    simd: S,
    step: &Step,
    vector: usize,
    inputs: &[&[f32]; R],
    k: usize,
    tile: &mut [[S::Vector; V]; R],
) {
    let mut weights = [simd.splat(0.0); V];
    for v in 0..V {
        weights[v] = simd.load(&step.0[vector + v]);
    }
    for r in 0..R {
        let x = simd.splat(inputs[r][k]);
        for v in 0..V {
            tile[r][v] = simd.mul_add(x, weights[v], tile[r][v]);
        }
    }
}
