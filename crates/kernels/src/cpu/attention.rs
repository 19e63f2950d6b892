//! Keys, values and attention over paged blocks.
//!
//! Inside a block, keys of one layer and head stand `[head_dim][BLOCK_POSITIONS]`, values `[BLOCK_POSITIONS][head_dim]`:
//! scores of a block's positions and the values of a head are both computed side by side, and every sum is one chain in
//! the order of positions or of the head's dimensions. That order depends on the row's position alone.

use std::cell::RefCell;

use super::disjoint::Disjoint;
use super::isa::{Isa, by_isa};
use super::math::{exp, sum_lanes};
use super::simd::{LANES, Simd};
use super::team::Team;
use crate::kv::{BLOCK_POSITIONS, KvRow, KvRows, KvShape, KvTable};

/// Multiply-adds below which attention stays on the calling thread.
const PARALLEL_FROM: usize = 1 << 18;

/// All blocks, `[blocks][layers][keys, values][heads]`, each head `[head_dim · BLOCK_POSITIONS]`.
#[derive(Debug)]
pub struct KvCache {
    data: Vec<f32>,
    shape: KvShape,
}

impl KvCache {
    pub(super) fn new(shape: KvShape) -> Self {
        Self { data: vec![0.0; shape.blocks * shape.block_len()], shape }
    }

    /// Where keys of `layer` and `head` begin in `block`; values begin one side later.
    #[inline(always)]
    fn keys_at(&self, block: usize, layer: usize, head: usize) -> usize {
        let KvShape { head_dim, .. } = self.shape;
        block * self.shape.block_len() + layer * 2 * self.shape.side_len() + head * head_dim * BLOCK_POSITIONS
    }

    /// Writes one position's keys and values (`[heads · head_dim]` each) into `block`.
    fn store(&mut self, block: usize, position: usize, layer: usize, keys: &[f32], values: &[f32]) {
        let KvShape { heads, head_dim, .. } = self.shape;
        let offset = position % BLOCK_POSITIONS;
        for head in 0..heads {
            let at = self.keys_at(block, layer, head);
            let own = head * head_dim..(head + 1) * head_dim;
            for (i, &key) in keys[own.clone()].iter().enumerate() {
                self.data[at + i * BLOCK_POSITIONS + offset] = key;
            }
            let at = at + self.shape.side_len() + offset * head_dim;
            self.data[at..at + head_dim].copy_from_slice(&values[own]);
        }
    }
}

/// See [`crate::Backend::rotate_and_store`]; `rotary` is `[positions, head_dim]`, a cosine and a sine per pair.
pub(super) fn rotate_and_store(
    isa: Isa,
    qkv: &mut [f32],
    bias: Option<&[f32]>,
    rotary: &[f32],
    rows: KvRows<'_>,
    layer: usize,
    cache: &mut KvCache,
) {
    let KvShape { heads, head_dim, .. } = cache.shape;
    let width = heads * head_dim;
    for (row, qkv) in rows.rows.iter().zip(qkv.chunks_exact_mut(3 * width)) {
        let (queries_keys, values) = qkv.split_at_mut(2 * width);
        let position = row.position as usize;
        let angles = &rotary[position * head_dim..][..head_dim];
        rotate(isa, queries_keys, bias, angles);
        cache.store(rows.written_block(row), position, layer, &queries_keys[width..], values);
    }
}

by_isa!(fn rotate = rotate_body(x: &mut [f32], bias: Option<&[f32]>, angles: &[f32]));

/// Adds the bias and turns each adjacent pair by its angle, head by head.
#[inline(always)]
fn rotate_body(x: &mut [f32], bias: Option<&[f32]>, angles: &[f32]) {
    if let Some(bias) = bias {
        for (x, bias) in x.iter_mut().zip(bias) {
            *x += bias;
        }
    }
    let (angles, _) = angles.as_chunks::<2>();
    for head in x.chunks_exact_mut(2 * angles.len()) {
        for ([even, odd], [cos, sin]) in head.as_chunks_mut().0.iter_mut().zip(angles) {
            let (x, y) = (*even, *odd);
            *even = x.mul_add(*cos, -(y * sin));
            *odd = x.mul_add(*sin, y * cos);
        }
    }
}

/// See [`crate::Backend::attention`]; `out` is `[rows, heads · head_dim]`.
pub(super) fn attention(
    (isa, team): (Isa, &Team),
    qkv: &[f32],
    rows: KvRows<'_>,
    layer: usize,
    cache: &KvCache,
    out: &mut [f32],
) {
    let KvShape { heads, head_dim, .. } = cache.shape;
    let width = heads * head_dim;
    let work: usize = rows.rows.iter().map(|row| (row.position as usize + 1) * 2 * width).sum();
    let out = Disjoint::new(&mut out[..rows.len() * width]);
    let one = |i: usize| {
        let row = &rows.rows[i];
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.prepare(row, rows.table(row), layer, cache);
            attend(isa, &qkv[3 * width * i..][..width], cache, scratch, out.range(i * width, width));
        });
    };
    if work < PARALLEL_FROM {
        (0..rows.len()).for_each(one);
    } else {
        team.run(rows.len(), &one);
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What attention of one row needs beside its queries.
#[derive(Default)]
pub(super) struct Scratch {
    /// By position, rounded up to whole blocks: −∞ where the row does not see.
    scores: Vec<f32>,
    /// By position the row sees: where the block it reads there begins in the cache, for this layer.
    blocks: Vec<usize>,
}

impl Scratch {
    fn prepare(&mut self, row: &KvRow, table: &KvTable, layer: usize, cache: &KvCache) {
        let seen = row.position as usize + 1;
        // Room for a whole context at once, so that a growing lane does not allocate again and again.
        let room = seen.next_power_of_two().max(4096);
        self.scores.reserve(room.saturating_sub(self.scores.len()));
        self.blocks.reserve(room.saturating_sub(self.blocks.len()));
        self.scores.resize(seen.next_multiple_of(BLOCK_POSITIONS), 0.0);
        self.blocks.clear();
        self.blocks.extend((0..seen).map(|position| {
            let slot = table.readable_slot(row.slot, position);
            cache.keys_at(table.readable_block(slot, position), layer, 0)
        }));
    }
}

by_isa!(fn attend<S> = attend_body(queries: &[f32], cache: &KvCache, scratch: &mut Scratch, out: &mut [f32]));

/// One row, head after head.
#[inline(always)]
fn attend_body<S: Simd>(simd: S, queries: &[f32], cache: &KvCache, scratch: &mut Scratch, out: &mut [f32]) {
    let head_dim = cache.shape.head_dim;
    let Scratch { scores, blocks } = scratch;
    let each = queries.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim));
    for (head, (query, out)) in each.enumerate() {
        let keys = head * head_dim * BLOCK_POSITIONS;
        let of_blocks = scores.as_chunks_mut().0.iter_mut().zip(blocks.chunks(BLOCK_POSITIONS));
        for (scores, blocks) in of_blocks {
            block_scores(simd, query, blocks, keys, cache, scores);
        }
        let total = softmax_numerators(scores);
        out.fill(0.0);
        let values = keys + cache.shape.side_len();
        for (position, (&weight, block)) in scores.iter().zip(&*blocks).enumerate() {
            let at = block + values + position % BLOCK_POSITIONS * head_dim;
            for (out, &value) in out.iter_mut().zip(&cache.data[at..at + head_dim]) {
                *out = weight.mul_add(value, *out);
            }
        }
        for out in out {
            *out /= total;
        }
    }
}

/// Scores of the positions of one block, which `blocks` says where to read; −∞ for those the row does not see. `keys` is
/// the head's place in a block.
#[inline(always)]
fn block_scores<S: Simd>(
    simd: S,
    query: &[f32],
    blocks: &[usize],
    keys: usize,
    cache: &KvCache,
    scores: &mut [f32; BLOCK_POSITIONS],
) {
    let scale = 1.0 / (query.len() as f32).sqrt();
    *scores = [f32::NEG_INFINITY; BLOCK_POSITIONS];
    let mut done = 0;
    // Neighbours mostly share a slot, so a block usually takes one pass.
    for alike in blocks.chunk_by(|a, b| a == b) {
        let keys = &cache.data[alike[0] + keys..][..query.len() * BLOCK_POSITIONS];
        let mut sums = simd.splat(0.0);
        for (&q, keys) in query.iter().zip(keys.as_chunks().0) {
            sums = simd.mul_add(simd.splat(q), simd.load(keys), sums);
        }
        let mut products = [0.0; BLOCK_POSITIONS];
        simd.store(sums, &mut products);
        for i in done..done + alike.len() {
            scores[i] = products[i] * scale;
        }
        done += alike.len();
    }
}

/// Replaces scores by e^(score − largest) and returns their sum.
#[inline(always)]
fn softmax_numerators(scores: &mut [f32]) -> f32 {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0_f32; LANES];
    for scores in scores.as_chunks_mut::<LANES>().0 {
        for (score, sum) in scores.iter_mut().zip(&mut sums) {
            // exp() never gives a true zero, which a masked position needs.
            let seen = if *score == f32::NEG_INFINITY { 0.0 } else { 1.0 };
            *score = exp(*score - largest) * seen;
            *sum += *score;
        }
    }
    sum_lanes(sums)
}
