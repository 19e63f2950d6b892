//! Attention over paged blocks.
//!
//! A score is the sum of sixteen partial sums over the head's dimensions, added in one fixed tree; values are added up in one
//! chain over the positions. So what a row gets depends on its position and slots alone. Rows of one lane that want the same
//! slot read the same keys and values: each head does all of them before the next head, from the cache.

mod parts;

use std::cell::RefCell;
use std::ops::Range;

use parts::Parts;

use super::cache::{Data, KvCache, Stored};
use super::disjoint::Disjoint;
use super::isa::{Isa, by_isa};
use super::math::{exp, sum_lanes};
use super::rotate::padded;
use super::simd::{LANES, Simd, fetch};
use super::team::Team;
use crate::kv::{BLOCK_POSITIONS, KvRow, KvRows, KvShape, KvTable};

/// Multiply-adds below which attention stays on the calling thread.
const PARALLEL_FROM: usize = 1 << 16;

/// See [`crate::Backend::attention`]; `out` is `[rows, heads · head_dim]`.
pub(super) fn attention(
    (isa, team): (Isa, &Team),
    qkv: &[f32],
    rows: KvRows<'_>,
    layer: usize,
    cache: &KvCache,
    out: &mut [f32],
) {
    let KvShape { heads, head_dim, .. } = cache.shape();
    let width = heads * head_dim;
    let work: usize = rows.rows.iter().map(|row| (row.position as usize + 1) * 2 * width).sum();
    let parts = Parts::new(rows.len(), heads, if work < PARALLEL_FROM { 1 } else { team.threads() });
    let launch =
        Attention { isa, qkv, rows, layer, cache, out: Disjoint::new(&mut out[..rows.len() * width]) };
    let one = |part| {
        let (rows, heads) = parts.get(part);
        SCRATCH.with_borrow_mut(|scratch| launch.run(rows, heads, scratch));
    };
    if parts.threads == 1 {
        (0..parts.count()).for_each(one);
    } else {
        team.run(parts.count(), &one);
    }
}

/// One launch.
struct Attention<'a> {
    isa: Isa,
    qkv: &'a [f32],
    rows: KvRows<'a>,
    layer: usize,
    cache: &'a KvCache,
    /// `[rows, heads · head_dim]`.
    out: Disjoint<'a, f32>,
}

impl Attention<'_> {
    /// Some rows' share of some heads.
    fn run(&self, rows: Range<usize>, heads: Range<usize>, scratch: &mut Scratch) {
        let mut first = rows.start;
        let read_alike = |a: &KvRow, b: &KvRow| (a.table, a.slot) == (b.table, b.slot);
        for alike in self.rows.rows[rows].chunk_by(read_alike) {
            let last = alike.iter().map(|row| row.position).max().unwrap_or(0);
            scratch.prepare(
                last as usize + 1,
                alike[0].slot,
                self.rows.table(&alike[0]),
                self.layer,
                self.cache,
            );
            for head in heads.clone() {
                for (i, row) in alike.iter().enumerate() {
                    self.attend(first + i, row.position as usize + 1, head, scratch);
                }
            }
            first += alike.len();
        }
    }

    /// One row's head over its first `seen` positions.
    fn attend(&self, row: usize, seen: usize, head: usize, scratch: &mut Scratch) {
        let KvShape { heads, head_dim, .. } = self.cache.shape();
        let width = heads * head_dim;
        let query = &self.qkv[3 * width * row + head * head_dim..][..head_dim];
        let scores = &mut scratch.scores[..seen.next_multiple_of(BLOCK_POSITIONS)];
        let out = self.out.range(row * width + head * head_dim, head_dim);
        let keys = head * head_dim * BLOCK_POSITIONS;
        let (values, blocks) = (keys + self.cache.shape().side_len(), &scratch.blocks[..seen]);
        match self.cache.data() {
            Data::F32(data) => {
                attend_f32(self.isa, query, (&data[keys..], &data[values..]), blocks, scores, out);
            }
            Data::Bf16(data) => {
                attend_bf16(self.isa, query, (&data[keys..], &data[values..]), blocks, scores, out);
            }
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What attention of rows that read alike needs beside their queries.
#[derive(Default)]
struct Scratch {
    /// By position, rounded up to whole blocks: −∞ where a row does not see.
    scores: Vec<f32>,
    /// By position: where the block that is read there begins in the cache, for this layer.
    blocks: Vec<usize>,
}

impl Scratch {
    fn prepare(&mut self, seen: usize, slot: u32, table: &KvTable, layer: usize, cache: &KvCache) {
        // Room for a whole context at once, so that a growing lane does not allocate again and again.
        let room = seen.next_power_of_two().max(4096);
        self.scores.reserve(room.saturating_sub(self.scores.len()));
        self.blocks.reserve(room.saturating_sub(self.blocks.len()));
        self.scores.resize(seen.next_multiple_of(BLOCK_POSITIONS), 0.0);
        self.blocks.clear();
        self.blocks.extend((0..seen).map(|position| {
            let slot = table.readable_slot(slot, position);
            cache.shape().keys_at(table.readable_block(slot, position), layer)
        }));
    }
}

by_isa!(fn attend_f32<S> = attend_body(
    query: &[f32], keys_values: (&[f32], &[f32]), blocks: &[usize], scores: &mut [f32], out: &mut [f32],
));
by_isa!(fn attend_bf16<S> = attend_body(
    query: &[f32], keys_values: (&[u16], &[u16]), blocks: &[usize], scores: &mut [f32], out: &mut [f32],
));

/// One head of one row over the positions of `blocks`; `scores` has as many, rounded up to whole blocks. Blocks begin at the head's keys
/// and values.
#[inline(always)]
fn attend_body<S: Simd, T: Stored>(
    simd: S,
    query: &[f32],
    (keys, values): (&[T], &[T]),
    blocks: &[usize],
    scores: &mut [f32],
    out: &mut [f32],
) {
    let of_blocks = scores.as_chunks_mut().0.iter_mut().zip(blocks.chunks(BLOCK_POSITIONS));
    for (scores, blocks) in of_blocks {
        block_scores(simd, query, (keys, values), blocks, scores);
    }
    let total = softmax_numerators(scores);
    // The last head has no next one: behind its keys are values, so that there is something to fetch for it too.
    let values = (values, &keys[query.len() * BLOCK_POSITIONS..]);
    let mut done = 0;
    while out.len() - done >= 4 * LANES {
        add_values::<S, T, 4>(simd, scores, values, blocks, total, out, done);
        done += 4 * LANES;
    }
    while out.len() - done >= LANES {
        add_values::<S, T, 1>(simd, scores, values, blocks, total, out, done);
        done += LANES;
    }
    for column in done..out.len() {
        out[column] =
            scores.iter().zip(blocks).enumerate().fold(0.0, |sum: f32, (position, (weight, block))| {
                let value = values.0[block + position % BLOCK_POSITIONS * out.len() + column];
                weight.mul_add(value.to_f32(), sum)
            }) / total;
    }
}

/// Scores of the positions of one block, whose keys are in `keys` from `blocks` on; −∞ for those the row does not see. What is
/// at the same places of `next` is fetched meanwhile.
#[inline(always)]
fn block_scores<S: Simd, T: Stored>(
    simd: S,
    query: &[f32],
    (keys, next): (&[T], &[T]),
    blocks: &[usize],
    scores: &mut [f32; BLOCK_POSITIONS],
) {
    let scale = 1.0 / (query.len() as f32).sqrt();
    let mut sums = [simd.splat(0.0); BLOCK_POSITIONS];
    for (offset, (sum, block)) in sums.iter_mut().zip(blocks).enumerate() {
        let at = block + offset * query.len();
        fetch_all(&next[at..at + query.len()]);
        *sum = products(simd, query, &keys[at..at + query.len()]);
    }
    simd.store(simd.sum_each(sums), scores);
    for (offset, score) in scores.iter_mut().enumerate() {
        *score = if offset < blocks.len() { *score * scale } else { f32::NEG_INFINITY };
    }
}

/// Sixteen partial sums of a dot product: element j goes to lane j mod 16.
#[inline(always)]
fn products<S: Simd, T: Stored>(simd: S, query: &[f32], keys: &[T]) -> S::Vector {
    let ((query, query_tail), (keys, keys_tail)) = (query.as_chunks(), keys.as_chunks());
    let mut sums = simd.splat(0.0);
    for (query, keys) in query.iter().zip(keys) {
        sums = simd.mul_add(simd.load(query), T::load(simd, keys), sums);
    }
    if !query_tail.is_empty() {
        let mut keys = [0.0; LANES];
        for (key, stored) in keys.iter_mut().zip(keys_tail) {
            *key = stored.to_f32();
        }
        sums = simd.mul_add(simd.load(&padded(query_tail)), simd.load(&keys), sums);
    }
    sums
}

/// Replaces scores by e^(score − largest) and returns their sum.
#[inline(always)]
fn softmax_numerators(scores: &mut [f32]) -> f32 {
    let scores = scores.as_chunks_mut::<LANES>().0;
    let mut largest = [f32::NEG_INFINITY; LANES];
    for scores in &*scores {
        for (largest, &score) in largest.iter_mut().zip(scores) {
            *largest = if score > *largest { score } else { *largest };
        }
    }
    let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0_f32; LANES];
    for scores in scores {
        for (score, sum) in scores.iter_mut().zip(&mut sums) {
            // exp() never gives a true zero, which a masked position needs.
            let seen = if *score == f32::NEG_INFINITY { 0.0 } else { 1.0 };
            *score = exp(*score - largest) * seen;
            *sum += *score;
        }
    }
    sum_lanes(sums)
}

/// `N` vectors of `out` from column `first` on: the sum of `weights · values` over the positions, over `total`. What is at the same
/// places of `next` is fetched meanwhile.
#[inline(always)]
fn add_values<S: Simd, T: Stored, const N: usize>(
    simd: S,
    weights: &[f32],
    (values, next): (&[T], &[T]),
    blocks: &[usize],
    total: f32,
    out: &mut [f32],
    first: usize,
) {
    let mut sums = [simd.splat(0.0); N];
    for (position, (&weight, block)) in weights.iter().zip(blocks).enumerate() {
        let at = block + position % BLOCK_POSITIONS * out.len() + first;
        let weight = simd.splat(weight);
        fetch_all(&next[at..at + N * LANES]);
        for (sum, values) in sums.iter_mut().zip(values[at..at + N * LANES].as_chunks().0) {
            *sum = simd.mul_add(weight, T::load(simd, values), *sum);
        }
    }
    for (sum, out) in sums.into_iter().zip(out[first..].as_chunks_mut().0) {
        simd.store(sum, out);
        for out in out {
            *out /= total;
        }
    }
}

/// Asks for the lines of `stored` to be brought nearer, one for every 64 bytes.
#[inline(always)]
fn fetch_all<T>(stored: &[T]) {
    let mut at = 0;
    while at < stored.len() {
        fetch(&stored[at]);
        at += 64 / size_of::<T>();
    }
}
