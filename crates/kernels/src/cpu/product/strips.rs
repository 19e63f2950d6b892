//! Products on vectors: each sum is one chain over the groups of inputs, in order.
//!
//! A group is one f32 input, or as many narrower ones as fit into 32 bits. A tile keeps the sums of up to six rows by a panel,
//! or by a part of one where registers are few, and walks a chunk of the groups once. Chunks follow one another and go on from
//! the sums of the last, so neither the tile nor the chunk changes a bit.

use std::ops::Range;

use super::geometry::{Step, Sums, VECTORS};
use crate::cpu::isa::is_amd;
use crate::cpu::simd::fetch;

/// Groups of a chunk: its weights stay in the second-level cache between strips.
const CHUNK: usize = 512;
/// The same where one strip passes several times, for different vectors: in the first-level cache.
const SMALL_CHUNK: usize = 64;
/// Groups between two looks at what is to be fetched.
const STRIDE: usize = 4;
/// Rows of a tile at most.
const ROWS: usize = 6;

/// Sixteen sums, and how the products of a group are added to them.
pub(super) trait Dot: Copy {
    /// Inputs that are multiplied at once.
    type Group: Copy + Default;
    type Sums: Copy;
    /// Vectors of sums that registers hold beside what adding to them needs.
    const TILE: usize;

    fn zero(self) -> Self::Sums;
    fn load(self, from: &[f32; 16]) -> Self::Sums;
    fn store(self, sums: Self::Sums, to: &mut [f32; 16]);
    /// Adds the products of a row's group with those of sixteen outputs.
    fn add(self, sums: Self::Sums, input: Self::Group, weights: &[Self::Group; 16]) -> Self::Sums;
}

/// Rows of groups.
pub(super) trait Groups {
    type Group: Copy;

    /// Where the piece of a row that holds group `at` ends.
    fn piece_end(&self, at: usize) -> usize;
    /// These groups of row `i`, which must be of one piece.
    fn groups(&self, i: usize, groups: Range<usize>) -> &[Self::Group];
}

/// Some rows by one panel.
pub(super) struct Task<'a, I: Groups> {
    pub(super) input: &'a I,
    pub(super) rows: Range<usize>,
    pub(super) panel: &'a [Step<I::Group>],
    /// What memory holds after the panel, fetched ahead of use.
    pub(super) following: &'a [Step<I::Group>],
}

impl<'a, I: Groups> Task<'a, I> {
    /// `rows` of `input` by panel number `index` of `panels`, each `depth` long.
    pub(super) fn new(
        input: &'a I,
        rows: Range<usize>,
        panels: &'a [Step<I::Group>],
        (index, depth): (usize, usize),
    ) -> Self {
        let (panel, following) = panels[index * depth..].split_at(depth);
        Self { input, rows, panel, following }
    }
}

/// `sums[i] = panel · input[rows][i]`.
#[inline(always)]
pub(super) fn multiply<D: Dot>(dot: D, task: Task<'_, impl Groups<Group = D::Group>>, sums: &mut [Sums]) {
    let strip = task.rows.len().min(ROWS);
    let product = Product { dot, task };
    // As many vectors at a time as registers hold the sums of.
    if 4 * strip <= D::TILE {
        product.multiply::<4>(sums);
    } else if 2 * strip <= D::TILE {
        product.multiply::<2>(sums);
    } else {
        product.multiply::<1>(sums);
    }
}

/// A task, and how it is done.
struct Product<'a, D, I: Groups> {
    dot: D,
    task: Task<'a, I>,
}

impl<D: Dot, I: Groups<Group = D::Group>> Product<'_, D, I> {
    /// All groups, in chunks, `V` vectors at a time.
    #[inline(always)]
    fn multiply<const V: usize>(&self, sums: &mut [Sums]) {
        let strips = self.task.rows.len().div_ceil(ROWS.min(D::TILE / V));
        let most = if V == VECTORS || strips > 1 { CHUNK } else { SMALL_CHUNK };
        let mut start = 0;
        while start < self.task.panel.len() {
            let end = self.task.input.piece_end(start).min(start + most).min(self.task.panel.len());
            self.chunk::<V>(start..end, strips, sums);
            start = end;
        }
    }

    /// All rows, in strips, by a chunk.
    #[inline(always)]
    fn chunk<const V: usize>(&self, groups: Range<usize>, strips: usize, sums: &mut [Sums]) {
        let (fewest, longer) = (self.task.rows.len() / strips, self.task.rows.len() % strips);
        let passes = VECTORS / V;
        // Loops, no iterators' closures: instructions of an ISA are inlined only into what is compiled for it.
        let mut first = 0;
        for strip in 0..strips {
            let rows = fewest + usize::from(strip < longer);
            for vector in (0..VECTORS).step_by(V) {
                let ahead = self.ahead(&groups, strip * passes + vector / V, strips * passes);
                let sums = &mut sums[first..first + rows];
                match rows {
                    1 => self.tile::<1, V>(&groups, first, vector, sums, ahead),
                    2 => self.tile::<2, V>(&groups, first, vector, sums, ahead),
                    3 => self.tile::<3, V>(&groups, first, vector, sums, ahead),
                    4 => self.tile::<4, V>(&groups, first, vector, sums, ahead),
                    5 => self.tile::<5, V>(&groups, first, vector, sums, ahead),
                    _ => self.tile::<6, V>(&groups, first, vector, sums, ahead),
                }
            }
            first += rows;
        }
    }

    /// A pass's share of the next chunk's weights, to be fetched while this one is multiplied. There is none where the processor
    /// reads ahead faster by itself: for one row, on AMD's for all that is read once and in order.
    #[inline(always)]
    fn ahead(&self, groups: &Range<usize>, pass: usize, passes: usize) -> &[Step<D::Group>] {
        if passes == 1 && (self.task.rows.len() == 1 || is_amd()) {
            return &[];
        }
        let next = if groups.end < self.task.panel.len() {
            &self.task.panel[groups.end..]
        } else {
            self.task.following
        };
        let len = groups.len().min(next.len());
        &next[pass * len / passes..(pass + 1) * len / passes]
    }

    /// `R` rows from `first` on by `V` vectors of the panel from `vector` on.
    #[inline(always)]
    fn tile<const R: usize, const V: usize>(
        &self,
        groups: &Range<usize>,
        first: usize,
        vector: usize,
        sums: &mut [Sums],
        ahead: &[Step<D::Group>],
    ) {
        const { assert!(V <= VECTORS) };
        let sums: &mut [Sums; R] = sums.try_into().expect("as many sums as rows");
        let dot = self.dot;
        let steps = &self.task.panel[groups.clone()];
        let inputs: [&[D::Group]; R] =
            std::array::from_fn(|r| self.task.input.groups(self.task.rows.start + first + r, groups.clone()));
        // Slices of one length, so that the loop over it needs no bounds checks.
        let inputs: [&[D::Group]; R] = std::array::from_fn(|r| &inputs[r][..steps.len()]);
        let mut tile = [[dot.zero(); V]; R];
        if groups.start > 0 {
            for (tile, sums) in tile.iter_mut().zip(sums.iter_mut()) {
                for (v, sum) in tile.iter_mut().enumerate() {
                    *sum = dot.load(&sums.vectors()[vector + v]);
                }
            }
        }
        // Lines are fetched evenly over the pass: what is asked for faster than memory gives it is not brought.
        let (strides, rest) = steps.as_chunks::<STRIDE>();
        let input_strides: [&[[D::Group; STRIDE]]; R] =
            std::array::from_fn(|r| &inputs[r].as_chunks::<STRIDE>().0[..strides.len()]);
        // Several passes share what is to be fetched: then it may be less than a step for each stride.
        let by_line = ahead.len() < strides.len();
        let due_per_stride = if by_line { VECTORS * ahead.len() } else { ahead.len() };
        let (mut next, mut due) = (0, 0);
        for stride in 0..strides.len() {
            due += due_per_stride;
            while due >= strides.len() {
                if by_line {
                    fetch(&ahead[next / VECTORS].0[next % VECTORS]);
                } else {
                    for line in &ahead[next].0 {
                        fetch(line);
                    }
                }
                next += 1;
                due -= strides.len();
            }
            for k in 0..STRIDE {
                let mut x = [D::Group::default(); R];
                for r in 0..R {
                    x[r] = input_strides[r][stride][k];
                }
                add_step(dot, &strides[stride][k], vector, x, &mut tile);
            }
        }
        let done = STRIDE * strides.len();
        for k in 0..rest.len() {
            let mut x = [D::Group::default(); R];
            for r in 0..R {
                x[r] = inputs[r][done + k];
            }
            add_step(dot, &rest[k], vector, x, &mut tile);
        }
        for (tile, sums) in tile.iter().zip(sums) {
            for (v, &sum) in tile.iter().enumerate() {
                dot.store(sum, &mut sums.vectors()[vector + v]);
            }
        }
    }
}

/// Adds one group's products to a tile of sums.
#[expect(clippy::needless_range_loop, reason = "one index for several arrays of known length")]
#[inline(always)]
fn add_step<D: Dot, const R: usize, const V: usize>(
    dot: D,
    step: &Step<D::Group>,
    vector: usize,
    x: [D::Group; R],
    tile: &mut [[D::Sums; V]; R],
) {
    for r in 0..R {
        for v in 0..V {
            tile[r][v] = dot.add(tile[r][v], x[r], &step.0[vector + v]);
        }
    }
}
