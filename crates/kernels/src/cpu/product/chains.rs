//! Products in f32: each sum is one chain of fused multiply-adds over the inputs, in order.
//!
//! A tile keeps the sums of up to six rows by a panel in registers and walks a chunk of the inputs once. Chunks
//! follow one another and go on from the sums of the last, so neither the tile nor the chunk changes a bit.

use std::ops::Range;

use super::geometry::{Step, Sums, VECTORS};
use super::input::Input;
use crate::cpu::isa::by_isa;
use crate::cpu::simd::Simd;

/// Inputs of a chunk: its weights stay in the second-level cache between strips.
const CHUNK: usize = 256;
/// The same where one strip passes several times, for different vectors: in the first-level cache.
const SMALL_CHUNK: usize = 64;
/// Rows of a tile at most.
const ROWS: usize = 6;

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
    let most = if S::WIDE || rows.len() > ROWS { CHUNK } else { SMALL_CHUNK };
    let mut start = 0;
    while start < panel.len() {
        let end = input.part_end(start).min(start + most);
        let chunk = Chunk { simd, input, rows: rows.clone(), columns: start..end, panel, following };
        // As many vectors at a time as registers hold the sums of.
        match rows.len() {
            1 => chunk.multiply::<4>(sums),
            _ if S::WIDE => chunk.multiply::<4>(sums),
            2 | 3 => chunk.multiply::<2>(sums),
            _ => chunk.multiply::<1>(sums),
        }
        start = end;
    }
}

/// One chunk of inputs.
struct Chunk<'a, S> {
    simd: S,
    input: &'a Input<'a>,
    rows: Range<usize>,
    columns: Range<usize>,
    panel: &'a [Step],
    following: &'a [Step],
}

impl<S: Simd> Chunk<'_, S> {
    /// All rows, in strips, by the panel, `V` vectors at a time.
    #[inline(always)]
    fn multiply<const V: usize>(&self, sums: &mut [Sums]) {
        let strips = self.rows.len().div_ceil(ROWS);
        let (fewest, longer) = (self.rows.len() / strips, self.rows.len() % strips);
        let passes = VECTORS / V * strips;
        let mut pass = 0;
        // Loops, no iterators' closures: instructions of an ISA are inlined only into what is compiled for it.
        for vector in (0..VECTORS).step_by(V) {
            let mut first = 0;
            for strip in 0..strips {
                let rows = fewest + usize::from(strip < longer);
                let ahead = self.ahead(pass, passes);
                let sums = &mut sums[first..first + rows];
                match rows {
                    1 => self.tile::<1, V>(first, vector, sums, ahead),
                    2 => self.tile::<2, V>(first, vector, sums, ahead),
                    3 => self.tile::<3, V>(first, vector, sums, ahead),
                    4 => self.tile::<4, V>(first, vector, sums, ahead),
                    5 => self.tile::<5, V>(first, vector, sums, ahead),
                    _ => self.tile::<6, V>(first, vector, sums, ahead),
                }
                first += rows;
                pass += 1;
            }
        }
    }

    /// One pass's share of the next chunk's weights, to be fetched while this one is multiplied.
    #[inline(always)]
    fn ahead(&self, pass: usize, passes: usize) -> &[Step] {
        let end = self.columns.end;
        let next = if end < self.panel.len() { &self.panel[end..] } else { self.following };
        let len = self.columns.len().min(next.len());
        &next[pass * len / passes..(pass + 1) * len / passes]
    }

    /// `R` rows from `first` on by `V` vectors of the panel from `vector` on.
    #[expect(clippy::needless_range_loop, reason = "one index for several arrays of known length")]
    #[inline(always)]
    fn tile<const R: usize, const V: usize>(
        &self,
        first: usize,
        vector: usize,
        sums: &mut [Sums],
        ahead: &[Step],
    ) {
        const { assert!(V <= VECTORS) };
        let sums: &mut [Sums; R] = sums.try_into().expect("as many sums as rows");
        let simd = self.simd;
        let steps = &self.panel[self.columns.clone()];
        let inputs: [&[f32]; R] =
            std::array::from_fn(|r| self.input.columns(self.rows.start + first + r, self.columns.clone()));
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
        let is_shared = ahead.len() < steps.len();
        let fetching = if is_shared { 2 * ahead.len() } else { ahead.len() }.min(steps.len());
        if is_shared {
            for k in 0..fetching {
                let half = k % 2 * (VECTORS / 2);
                let step = &ahead[k / 2].0;
                simd.fetch(&step[half]);
                simd.fetch(&step[half + 1]);
                add_step(simd, &steps[k], vector, &inputs, k, &mut tile);
            }
        } else {
            for k in 0..fetching {
                for line in &ahead[k].0 {
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
