//! The plain twin of every backend: one obvious loop per operation, no threads, no packing, no vectors.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use crate::backend::{
    Backend, Commit, LargestOutput, LatentChange, Norm, NormWeights, Rotation, Rows, Stopped,
};
use crate::cpu::Arithmetic;
use crate::draw::{Draw, Draws, Weights, key};
use crate::kv::{BLOCK_POSITIONS, KvRows, KvShape};
use crate::report::Reported;
use crate::weight::Weight;

/// What the other backends are tested against. Slow.
#[derive(Debug)]
pub struct Plain;

/// A list of rows, or of a weight's outputs.
pub(crate) type PlainMatrix = Vec<Vec<f32>>;

/// Keys and values by `[block][layer][position in block]`, each `[heads · head_dim]`.
#[derive(Debug)]
pub struct PlainCache {
    shape: KvShape,
    keys: Vec<Vec<Vec<Vec<f32>>>>,
    values: Vec<Vec<Vec<Vec<f32>>>>,
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |sum, (&a, &b)| a.mul_add(b, sum))
}

fn normed(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mean_square = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
    x.iter().zip(weight).map(|(x, weight)| x / (mean_square + eps).sqrt() * weight).collect()
}

impl Backend for Plain {
    type Buffer = PlainMatrix;
    type Matrix = PlainMatrix;
    type KvCache = PlainCache;
    type Report<T: Reported> = Vec<T>;
    type Mark = Option<Instant>;
    type Parcel = PlainMatrix;

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::F32
    }

    fn buffer(&self, capacity: usize, width: usize) -> PlainMatrix {
        vec![vec![0.0; width]; capacity]
    }

    fn matrix(&self, weight: &Weight<'_>) -> PlainMatrix {
        weight.to_vec().chunks_exact(weight.width()).map(<[f32]>::to_vec).collect()
    }

    fn gate_matrix(&self, weights: &Weight<'_>) -> PlainMatrix {
        self.matrix(weights)
    }

    fn kv_cache(&self, shape: KvShape) -> PlainCache {
        let width = shape.heads * shape.head_dim;
        let empty = vec![vec![vec![vec![0.0; width]; BLOCK_POSITIONS]; shape.layers]; shape.blocks];
        PlainCache { shape, keys: empty.clone(), values: empty }
    }

    fn upload(&self, values: &[f32], to: &mut PlainMatrix, rows: Rows<'_>) {
        for (i, values) in values.chunks_exact(values.len() / rows.len()).enumerate() {
            to[rows.index(i)] = values.to_vec();
        }
    }

    fn download(&self, from: &PlainMatrix, rows: usize, to: &mut Vec<f32>) {
        *to = from[..rows].concat();
    }

    fn mark(&self, mark: &mut Option<Instant>) {
        *mark = Some(Instant::now());
    }

    fn between(&self, from: &Option<Instant>, to: &Option<Instant>) -> Duration {
        from.zip(*to).map_or(Duration::ZERO, |(from, to)| to - from)
    }

    fn new_report<T: Reported>(&self, values: usize) -> Vec<T> {
        Vec::with_capacity(values)
    }

    fn report(&self, from: &PlainMatrix, rows: usize, to: &mut Vec<f32>) {
        self.download(from, rows, to);
    }

    fn receive<T: Reported>(&self, report: &mut Vec<T>, to: &mut Vec<T>) {
        *to = std::mem::take(report);
    }

    fn new_parcel(&self, rows: usize, width: usize) -> PlainMatrix {
        self.buffer(rows, width)
    }

    fn hand_over(&self, from: &PlainMatrix, rows: usize, parcel: &mut PlainMatrix) {
        *parcel = from[..rows].to_vec();
    }

    fn take_over(&self, parcel: &mut PlainMatrix, to: &mut PlainMatrix, rows: Rows<'_>) {
        assert_eq!(parcel.len(), rows.len(), "as many rows as were handed over");
        self.scatter(parcel, to, rows);
    }

    fn scatter(&self, from: &PlainMatrix, to: &mut PlainMatrix, rows: Rows<'_>) {
        for i in 0..rows.len() {
            to[rows.index(i)] = from[i].clone();
        }
    }

    fn embed(&self, table: &PlainMatrix, tokens: &[u32], scale: f32, out: &mut PlainMatrix) {
        for (out, &token) in out.iter_mut().zip(tokens) {
            *out = table[token as usize].iter().map(|value| value * scale).collect();
        }
    }

    fn matmul(&self, x: &PlainMatrix, rows: usize, weight: &PlainMatrix, out: &mut PlainMatrix) {
        for i in 0..rows {
            out[i] = weight.iter().map(|weight| dot(weight, &x[i])).collect();
        }
    }

    fn largest_outputs(
        &self,
        x: &PlainMatrix,
        rows: usize,
        weight: &PlainMatrix,
        largest: &mut Vec<LargestOutput>,
    ) {
        let largest_of = |x: &Vec<f32>| {
            let values = weight.iter().map(|weight| dot(weight, x)).enumerate();
            let outputs = values.map(|(i, value)| LargestOutput { output: i as u32, value });
            outputs.reduce(LargestOutput::or_later).expect("a weight with outputs")
        };
        *largest = x[..rows].iter().map(largest_of).collect();
    }

    fn draw(&self, logits: &mut PlainMatrix, draws: Draws<'_>, drawn: &mut Vec<u32>) {
        let draw = |(row, draw): (usize, &Draw)| {
            let logits = &mut logits[row];
            draws.changes_of(row).iter().for_each(|change| change.apply(logits));
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by_key(|&output| (Reverse(key(logits[output])), output));
            if draw.temperature == 0.0 || logits[order[0]].is_nan() {
                return order[0] as u32;
            }
            let weights = Weights::new(logits[order[0]], draw.temperature);
            let weight = |&output: &usize| weights.of(logits[output]);
            order.truncate(draw.top_k as usize);
            let mass = draw.mass(order.iter().map(weight).sum());
            let mut before = 0;
            order.retain(|output| {
                let is_kept = before < mass && weight(output) >= draw.least_weight();
                before += weight(output);
                is_kept
            });
            order.sort_unstable();
            let target = draw.target(order.iter().map(weight).sum());
            let mut sum = 0;
            let is_drawn = |output: &&usize| {
                sum += weight(output);
                sum > target
            };
            *order.iter().find(is_drawn).expect("a target below the sum") as u32
        };
        *drawn = draws.rows.iter().enumerate().map(draw).collect();
    }

    fn adapter(
        &self,
        latent: &PlainMatrix,
        embedding: &PlainMatrix,
        rows: Rows<'_>,
        weight: &PlainMatrix,
        out: &mut PlainMatrix,
    ) {
        for (i, out) in out.iter_mut().enumerate().take(rows.len()) {
            let input = [latent[rows.index(i)].as_slice(), &embedding[rows.index(i)]].concat();
            *out = weight.iter().map(|weight| dot(weight, &input)).collect();
        }
    }

    fn rms_norm(&self, x: &PlainMatrix, rows: Rows<'_>, weight: &[f32], eps: f32, out: &mut PlainMatrix) {
        for i in 0..rows.len() {
            out[i] = normed(&x[rows.index(i)], weight, eps);
        }
    }

    fn add_rms_norm(
        &self,
        x: &mut PlainMatrix,
        residual: &PlainMatrix,
        rows: usize,
        weight: &[f32],
        eps: f32,
    ) {
        for (x, residual) in x.iter_mut().zip(residual).take(rows) {
            let sum: Vec<f32> = x.iter().zip(residual).map(|(x, residual)| x + residual).collect();
            *x = normed(&sum, weight, eps);
        }
    }

    fn add_norm_norm(
        &self,
        x: &mut PlainMatrix,
        residual: &PlainMatrix,
        rows: usize,
        weights: NormWeights<'_>,
        out: &mut PlainMatrix,
    ) {
        self.add_rms_norm(x, residual, rows, weights.first, weights.eps);
        self.rms_norm(x, Rows::First(rows), weights.next, weights.eps, out);
    }

    fn gated(&self, x: &PlainMatrix, rows: usize, weight: &PlainMatrix, out: &mut PlainMatrix) {
        let (gate, up) = weight.split_at(weight.len() / 2);
        for i in 0..rows {
            let outputs = gate.iter().zip(up).map(|(gate, up)| {
                let gate = dot(gate, &x[i]);
                gate / (1.0 + (-gate).exp()) * dot(up, &x[i])
            });
            out[i] = outputs.collect();
        }
    }

    fn rotate_and_store(
        &self,
        qkv: &mut PlainMatrix,
        Rotation { bias, angles }: Rotation<'_, PlainMatrix>,
        rows: KvRows<'_>,
        stopped: Option<Stopped<'_, PlainMatrix>>,
        layer: usize,
        cache: &mut PlainCache,
    ) {
        let KvShape { heads, head_dim, .. } = cache.shape;
        let width = heads * head_dim;
        for (i, (row, qkv)) in rows.rows.iter().zip(qkv).enumerate() {
            for j in 0..2 * width {
                qkv[j] += bias.map_or(0.0, |bias| bias[j]);
            }
            for j in (0..2 * width).step_by(2) {
                let [cos, sin] = [0, 1].map(|part| angles[row.position as usize][j % head_dim + part]);
                let [x, y] = [qkv[j], qkv[j + 1]];
                qkv[j] = x.mul_add(cos, -(y * sin));
                qkv[j + 1] = x.mul_add(sin, y * cos);
            }
            if stopped.is_some_and(|Stopped { flags, rows }| flags[rows[i] as usize][0] != 0.0) {
                continue;
            }
            let block = rows.written_block(row);
            let position = row.position as usize % BLOCK_POSITIONS;
            cache.keys[block][layer][position] = qkv[width..2 * width].to_vec();
            cache.values[block][layer][position] = qkv[2 * width..].to_vec();
        }
    }

    fn attention(
        &self,
        qkv: &PlainMatrix,
        rows: KvRows<'_>,
        layer: usize,
        cache: &PlainCache,
        out: &mut PlainMatrix,
    ) {
        let KvShape { heads, head_dim, .. } = cache.shape;
        for ((row, qkv), out) in rows.rows.iter().zip(qkv).zip(out) {
            let (table, last) = (rows.table(row), row.position as usize);
            let block = |position| table.readable_block(table.readable_slot(row.slot, position), position);
            for head in 0..heads {
                let own = head * head_dim..(head + 1) * head_dim;
                let score = |position| {
                    let keys = &cache.keys[block(position)][layer][position % BLOCK_POSITIONS];
                    dot(&qkv[own.clone()], &keys[own.clone()]) / (head_dim as f32).sqrt()
                };
                let scores: Vec<f32> = (0..=last).map(score).collect();
                let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let weights: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
                let total: f32 = weights.iter().sum();
                for j in own {
                    let value =
                        |position: usize| cache.values[block(position)][layer][position % BLOCK_POSITIONS][j];
                    out[j] = (0..=last).map(|position| weights[position] / total * value(position)).sum();
                }
            }
        }
    }

    fn add_norm_commit(
        &self,
        x: &mut PlainMatrix,
        residual: &PlainMatrix,
        norm: Norm<'_>,
        Commit { latents, rows, flags, stops }: Commit<'_, PlainMatrix>,
        changes: &mut Vec<LatentChange>,
    ) {
        let commit = |i: usize| {
            x[i].iter_mut().zip(&residual[i]).for_each(|(x, residual)| *x += residual);
            let row = rows[i] as usize;
            if flags[row][0] != 0.0 {
                return LatentChange::default();
            }
            let (current, previous) = (normed(&x[i], norm.weight, norm.eps), &mut latents[row]);
            let difference: Vec<f32> = current.iter().zip(&*previous).map(|(a, b)| a - b).collect();
            let change = LatentChange {
                difference_squared: dot(&difference, &difference),
                current_squared: dot(&current, &current),
                previous_squared: dot(previous, previous),
                dot: dot(&current, previous),
            };
            *previous = current;
            if stops.get(i).copied().unwrap_or_default().is_met(&change) {
                flags[row][0] = 1.0;
            }
            change
        };
        *changes = (0..rows.len()).map(commit).collect();
    }
}
