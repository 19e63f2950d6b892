//! Products in f32: each sum is one chain of fused multiply-adds over the inputs, in order.
//!
//! A tile keeps the sums of up to six rows by a panel, or by a part of one where registers are few, and walks a chunk of the inputs
//! once. Chunks follow one another and go on from the sums of the last, so neither the tile nor the chunk changes a bit.

use std::ops::Range;

use super::geometry::{Step, Sums, VECTORS};
use super::input::Input;
use crate::cpu::isa::by_isa;
use crate::cpu::simd::Simd;

/// Inputs of a chunk: its weights stay in the second-level cache between strips.
const CHUNK: usize = 256;
/// The same where one strip passes several times, for different vectors: in the first-level cache.
const SMALL_CHUNK: usize = 64;
/// Inputs between two looks at what is to be fetched.
const GROUP: usize = 4;
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
        let passes = VECTORS / V;
        // Loops, no iterators' closures: instructions of an ISA are inlined only into what is compiled for it.
        let mut first = 0;
        for strip in 0..strips {
            let rows = fewest + usize::from(strip < longer);
            for vector in (0..VECTORS).step_by(V) {
                let ahead = self.ahead(strip * passes + vector / V, strips * passes);
                let sums = &mut sums[first..first + rows];
                match rows {
                    1 => self.tile::<1, V>(first, vector, sums, ahead),
                    2 => self.tile::<2, V>(first, vector, sums, ahead),
                    3 => self.tile::<3, V>(first, vector, sums, ahead),
                    4 => self.tile::<4, V>(first, vector, sums, ahead),
                    5 => self.tile::<5, V>(first, vector, sums, ahead),
                    _ => self.tile::<6, V>(first, vector, sums, ahead),
                }
            }
            first += rows;
        }
    }

    /// A pass's share of the next chunk's weights, to be fetched while this one is multiplied. With one row there is none: then
    /// nothing is computed that the processor's own fetching ahead would not keep up with.
    #[inline(always)]
    fn ahead(&self, pass: usize, passes: usize) -> &[Step] {
        if self.rows.len() == 1 {
            return &[];
        }
        let end = self.columns.end;
        let next = if end < self.panel.len() { &self.panel[end..] } else { self.following };
        let len = self.columns.len().min(next.len());
        &next[pass * len / passes..(pass + 1) * len / passes]
    }

    /// `R` rows from `first` on by `V` vectors of the panel from `vector` on.
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
        // Lines are fetched evenly over the pass: what is asked for faster than memory gives it is not brought.
        let (groups, rest) = steps.as_chunks::<GROUP>();
        let input_groups: [&[[f32; GROUP]]; R] =
            std::array::from_fn(|r| &inputs[r].as_chunks::<GROUP>().0[..groups.len()]);
        // Several passes share what is to be fetched: then it may be less than a step for each group.
        let by_line = ahead.len() < groups.len();
        let due_per_group = if by_line { VECTORS * ahead.len() } else { ahead.len() };
        let (mut next, mut due) = (0, 0);
        for group in 0..groups.len() {
            due += due_per_group;
            while due >= groups.len() {
                if by_line {
                    simd.fetch(&ahead[next / VECTORS].0[next % VECTORS]);
                } else {
                    for line in &ahead[next].0 {
                        simd.fetch(line);
                    }
                }
                next += 1;
                due -= groups.len();
            }
            for k in 0..GROUP {
                let mut x = [0.0; R];
                for r in 0..R {
                    x[r] = input_groups[r][group][k];
                }
                add_step(simd, &groups[group][k], vector, x, &mut tile);
            }
        }
        let done = GROUP * groups.len();
        for k in 0..rest.len() {
            let mut x = [0.0; R];
            for r in 0..R {
                x[r] = inputs[r][done + k];
            }
            add_step(simd, &rest[k], vector, x, &mut tile);
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
    x: [f32; R],
    tile: &mut [[S::Vector; V]; R],
) {
    let mut weights = [simd.splat(0.0); V];
    for v in 0..V {
        weights[v] = simd.load(&step.0[vector + v]);
    }
    for r in 0..R {
        let x = simd.splat(x[r]);
        for v in 0..V {
            tile[r][v] = simd.mul_add(x, weights[v], tile[r][v]);
        }
    }
}
