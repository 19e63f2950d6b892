//! Every operation of a backend against its plain twin, on the machine at hand.
//!
//! Inputs of products are such that no format rounds them, so what differs is the order of sums.

mod group;

use half::{bf16, f16};

use crate::backend::{Backend, Commit, Norm, NormWeights, Rotation, Rows, Stop, Stopped};
use crate::draw::{Draw, Draws, LogitChange};
use crate::kv::{BLOCK_POSITIONS, KvFormat, KvRow, KvRows, KvShape, KvTable};
use crate::plain::Plain;
use crate::weight::{Stored, Weight};
use group::handed;
pub use group::{run_group, run_links, run_ring};

/// What one operation did.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// The operation.
    pub operation: &'static str,
    /// The largest difference from the twin, relative to the twin's magnitude where that is above 1; infinite where a result is
    /// no number.
    pub error: f32,
    /// What is allowed.
    pub tolerance: f32,
}

impl Check {
    /// Whether the error is within the tolerance.
    pub fn is_passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// Runs every operation, and tells of each when it is done: a device that fails may end the process.
pub fn run<B: Backend>(backend: &B, mut tell: impl FnMut(Check)) {
    let exact = 2e-5;
    // There keys and values are rounded.
    let attention = if backend.arithmetic().kv() == KvFormat::Bf16 { 1e-2 } else { exact };
    let mut check = |operation, tolerance, twin: &[f32], result: &[f32]| {
        tell(Check { operation, error: largest_error(twin, result), tolerance });
    };
    macro_rules! against_twin {
        ($name:literal, $tolerance:expr, $operation:expr) => {
            check($name, $tolerance, &$operation(&Plain), &$operation(backend));
        };
    }
    against_twin!("rows", 0.0, moved);
    against_twin!("rows from device to device", 0.0, |backend| handed(backend, backend));
    against_twin!("products", exact, multiplied);
    against_twin!("gated products", exact, gated);
    against_twin!("stored weights", exact, stored);
    against_twin!("adapter", exact, adapted);
    against_twin!("largest outputs", exact, largest);
    against_twin!("drawn outputs", 0.0, drawn);
    against_twin!("norms", exact, normed);
    against_twin!("latent changes", exact, committed);
    against_twin!("attention", attention, |backend| attended(backend, usize::MAX));
    check("a row's bits in other batches", 0.0, &alone(backend), &batched(backend));
    check("a row's attention in other batches", 0.0, &attended(backend, 1), &attended(backend, 21));
}

fn largest_error(twin: &[f32], result: &[f32]) -> f32 {
    assert_eq!(twin.len(), result.len(), "shapes differ");
    let error = |(a, b): (&f32, &f32)| if a == b { 0.0 } else { (a - b).abs() / a.abs().max(1.0) };
    let largest = |largest: f32, error: f32| if error.is_nan() { f32::INFINITY } else { largest.max(error) };
    twin.iter().zip(result).map(error).fold(0.0, largest)
}

/// Multiples of 1/128 in −1..1 from a small generator.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 56) as f32 - 128.0).max(-127.0) / 128.0
    };
    (0..len).map(|_| next()).collect()
}

/// Such values as rows, each with a largest of 127/128: bf16 holds them, and int8 with 1/128 as the row's scale.
fn matrix(rows: usize, width: usize, seed: u64) -> Vec<f32> {
    let mut values = values(rows * width, seed);
    values.iter_mut().step_by(width).for_each(|first| *first = 127.0 / 128.0);
    values
}

fn filled<B: Backend>(backend: &B, rows: usize, width: usize, seed: u64) -> B::Buffer {
    let mut buffer = backend.buffer(rows, width);
    backend.upload(&matrix(rows, width, seed), &mut buffer, Rows::First(rows));
    buffer
}

fn download<B: Backend>(backend: &B, buffer: &B::Buffer, rows: usize) -> Vec<f32> {
    let mut values = Vec::new();
    backend.download(buffer, rows, &mut values);
    values
}

fn moved<B: Backend>(backend: &B) -> Vec<f32> {
    let (rows, width) = (6, 100);
    let mut to = filled(backend, rows, width, 1);
    backend.scatter(&filled(backend, 3, width, 2), &mut to, Rows::At(&[4, 0, 5]));
    backend.upload(&values(2 * width, 3), &mut to, Rows::At(&[1, 3]));
    let mut embedded = backend.buffer(4, width);
    backend.embed(&to, &[5, 2, 2, 0], 0.5, &mut embedded);
    let mut out = download(backend, &to, rows);
    out.extend(download(backend, &embedded, 4));
    out
}

/// Rows, outputs and inputs, some of each shape that a backend may launch.
const SHAPES: [(usize, usize, usize); 7] =
    [(1, 33, 17), (2, 16, 80), (7, 5, 64), (16, 48, 560), (21, 176, 128), (64, 40, 4200), (90, 136, 96)];

fn multiplied<B: Backend>(backend: &B) -> Vec<f32> {
    let product = |(rows, outputs, inputs)| {
        let weight = backend.matrix(&Weight::of(&matrix(outputs, inputs, 3), inputs));
        let mut out = backend.buffer(rows, outputs);
        backend.matmul(&filled(backend, rows, inputs, 5), rows, &weight, &mut out);
        download(backend, &out, rows)
    };
    SHAPES.into_iter().flat_map(product).collect()
}

fn gated<B: Backend>(backend: &B) -> Vec<f32> {
    let product = |(rows, outputs, inputs)| {
        // Small, so that gates do not saturate.
        let small: Vec<f32> = matrix(2 * outputs, inputs, 3).iter().map(|value| value / 16.0).collect();
        let weight = backend.gate_matrix(&Weight::of(&small, inputs));
        let mut out = backend.buffer(rows, outputs);
        backend.gated(&filled(backend, rows, inputs, 5), rows, &weight, &mut out);
        download(backend, &out, rows)
    };
    SHAPES.into_iter().flat_map(product).collect()
}

/// Of weights of every stored type, of which some rows and columns are taken, and of one of several megabytes.
fn stored<B: Backend>(backend: &B) -> Vec<f32> {
    let (outputs, inputs, width) = (40, 82, 90);
    // Small, so that gates do not saturate.
    let wanted: Vec<f32> = matrix(2 * outputs, inputs, 3).iter().map(|value| value / 16.0).collect();
    // Of two matrices of 60 rows each rows 10 to 49, of each of these columns 3 to 84.
    let mut all = values(120 * width, 6);
    for (row, wanted) in (10..50).chain(70..110).zip(wanted.chunks_exact(inputs)) {
        all[row * width + 3..][..inputs].copy_from_slice(wanted);
    }
    let mut out = Vec::new();
    let mut multiply = |weight: &Weight<'_>| {
        let x = filled(backend, 2, weight.width(), 5);
        let mut product = backend.buffer(2, weight.rows());
        backend.matmul(&x, 2, &backend.matrix(weight), &mut product);
        out.extend(download(backend, &product, 2));
        let mut gated = backend.buffer(2, weight.rows() / 2);
        backend.gated(&x, 2, &backend.gate_matrix(weight), &mut gated);
        out.extend(download(backend, &gated, 2));
    };
    for (stored, bytes) in [
        (Stored::F32, all.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>()),
        (Stored::F16, all.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect()),
        (Stored::Bf16, all.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect()),
    ] {
        multiply(&Weight::new(&bytes, stored, width).rows_of_each(2, &(10..50)).columns(&(3..85)));
    }
    let large: Vec<f32> = matrix(300, 4200, 3).iter().map(|value| value / 16.0).collect();
    multiply(&Weight::of(&large, 4200));
    out
}

fn adapted<B: Backend>(backend: &B) -> Vec<f32> {
    let width = 80;
    let weight = backend.matrix(&Weight::of(&matrix(width, 2 * width, 1), 2 * width));
    let [latent, embedding] = [3, 4].map(|seed| filled(backend, 9, width, seed));
    let rows = [7, 0, 3, 8, 1];
    let mut out = backend.buffer(rows.len(), width);
    backend.adapter(&latent, &embedding, Rows::At(&rows), &weight, &mut out);
    download(backend, &out, rows.len())
}

/// Every output but two is far below, so that no rounding decides.
fn largest<B: Backend>(backend: &B) -> Vec<f32> {
    let (outputs, inputs) = (300, 40);
    let (mut report, mut found) = (backend.new_report(0), Vec::new());
    let mut all = Vec::new();
    for rows in [1, 9, 40, 70] {
        let mut weight: Vec<f32> = matrix(outputs, inputs, 3).iter().map(|value| value / 64.0).collect();
        for equal in [70, 200] {
            weight[equal * inputs..][..inputs].copy_from_slice(&matrix(1, inputs, 5));
        }
        weight[5 * inputs] = f32::NAN;
        let head = backend.matrix(&Weight::of(&weight, inputs));
        let mut x = filled(backend, rows, inputs, 7);
        backend.upload(&matrix(1, inputs, 5), &mut x, Rows::At(&[rows as u32 / 2]));
        backend.largest_outputs(&x, rows, &head, &mut report);
        backend.receive(&mut report, &mut found);
        all.extend([found[rows / 2].output as f32, found[rows / 2].value]);
        backend.upload(&vec![f32::NAN; inputs], &mut x, Rows::At(&[0]));
        backend.largest_outputs(&x, rows, &head, &mut report);
        backend.receive(&mut report, &mut found);
        all.push(found[0].output as f32);
    }
    all
}

/// Draws of rows with equal logits, infinite ones, and some that are no number.
fn drawn<B: Backend>(backend: &B) -> Vec<f32> {
    let changes = [(3, 2.0, 1.0, 0.0), (200, 0.0, 1.3, 0.5), (7, -1.5, 1.3, 0.0), (3, 0.0, 0.7, 0.25)];
    let changes =
        changes.map(|(output, bias, repetition, penalty)| LogitChange { output, bias, repetition, penalty });
    let plain = Draw { temperature: 0.7, ..Draw::default() };
    let ways = [
        plain,
        Draw { temperature: 0.0, ..plain },
        Draw { temperature: 0.0, changes: 3, ..plain },
        Draw { first_change: 3, changes: 1, ..plain },
        Draw { top_k: 1, ..plain },
        Draw { top_k: 40, temperature: 3.0, ..plain },
        Draw { top_p: 0.9, changes: 3, ..plain },
        Draw { top_p: 1e-9, ..plain },
        Draw { min_p: 0.2, ..plain },
        Draw { top_k: 60, top_p: 0.8, min_p: 0.01, temperature: 2.0, changes: 2, ..plain },
        Draw { top_p: 0.999, temperature: 0.05, ..plain },
    ];
    let mut all = Vec::new();
    let (mut report, mut found) = (backend.new_report(0), Vec::new());
    for (outputs, at_step) in [(300, 1 << 59), (1000, 1 << 61)] {
        for at in (0..u64::MAX / at_step).map(|step| step * at_step + step) {
            let rows = ways.map(|way| Draw { at, ..way });
            // Eighths, so that many are equal.
            let logits = |row: usize| {
                values(outputs, row as u64).into_iter().map(|value| (value * 40.0).round() / 8.0)
            };
            let mut logits: Vec<f32> = (0..rows.len()).flat_map(logits).collect();
            logits[5] = f32::NAN;
            logits[outputs + 9] = f32::INFINITY;
            logits[7 * outputs + 11] = f32::NEG_INFINITY;
            logits[10 * outputs..].fill(f32::NAN);
            let mut buffer = backend.buffer(rows.len(), outputs);
            backend.upload(&logits, &mut buffer, Rows::First(rows.len()));
            backend.draw(&mut buffer, Draws { rows: &rows, changes: &changes }, &mut report);
            backend.receive(&mut report, &mut found);
            all.extend(found.iter().map(|&output| output as f32));
        }
    }
    all
}

fn normed<B: Backend>(backend: &B) -> Vec<f32> {
    let (rows, width) = (5, 600);
    let weight = values(width, 1);
    let half = filled(backend, rows, width, 2);
    let mut normed = backend.buffer(rows, width);
    backend.rms_norm(&half, Rows::At(&[4, 2, 0, 1, 3]), &weight, 1e-6, &mut normed);
    backend.add_rms_norm(&mut normed, &half, rows, &weight, 1e-6);
    let mut again = backend.buffer(rows, width);
    let weights = NormWeights { first: &weight, next: &values(width, 9), eps: 1e-6 };
    backend.add_norm_norm(&mut normed, &half, rows, weights, &mut again);
    let mut out = download(backend, &normed, rows);
    out.extend(download(backend, &again, rows));
    out
}

/// Twice, with one row that stops by each rule and one that had stopped before.
fn committed<B: Backend>(backend: &B) -> Vec<f32> {
    let (width, rows) = (300, [6, 0, 2, 7, 1]);
    let [mut x, residual] = [1, 2].map(|seed| filled(backend, rows.len(), width, seed));
    let mut latents = filled(backend, 8, width, 7);
    let mut flags = backend.buffer(8, 1);
    backend.upload(&[1.0], &mut flags, Rows::At(&[2]));
    let stops = [
        Stop::RelativeDifference(10.0),
        Stop::CosineDistance(-1.0),
        Stop::RelativeDifference(10.0),
        Stop::Never,
        Stop::CosineDistance(3.0),
    ];
    let (mut report, mut changes) = (backend.new_report(0), Vec::new());
    let mut out = Vec::new();
    for stops in [&stops[..], &[]] {
        let norm = Norm { weight: &values(width, 3), eps: 1e-6 };
        let commit = Commit { latents: &mut latents, rows: &rows, flags: &mut flags, stops };
        backend.add_norm_commit(&mut x, &residual, norm, commit, &mut report);
        backend.receive(&mut report, &mut changes);
        out.extend(download(backend, &latents, 8));
        out.extend(download(backend, &flags, 8));
        out.extend(changes.iter().flat_map(|change| {
            [change.difference_squared, change.current_squared, change.previous_squared, change.dot]
        }));
    }
    out
}

const SLOTS: u32 = 3;

/// A lane whose positions hold 1 to [`SLOTS`] core slots, in no regular order, in blocks from `block` on.
fn lane(positions: usize, mut block: u32) -> KvTable {
    let mut table = KvTable::default();
    for slot in (0..=SLOTS).rev() {
        for position in (0..positions).step_by(BLOCK_POSITIONS) {
            table.set_block(slot, position, block);
            block += 1;
        }
    }
    for position in 0..positions {
        table.set_top_slot(position, 1 + (position * position / 3) as u32 % SLOTS);
    }
    table
}

/// Two lanes, of which rows read earlier positions at slots that those may not have; at most `batch` rows at a time.
fn attended<B: Backend>(backend: &B, batch: usize) -> Vec<f32> {
    let mut all = Vec::new();
    for (positions, heads, head_dim) in [(41_usize, 5, 16), (150, 3, 56), (40, 1, 96), (37, 1, 130)] {
        let width = heads * head_dim;
        let blocks = positions.div_ceil(BLOCK_POSITIONS) * (SLOTS as usize + 1);
        let tables = [lane(positions, 0), lane(positions, blocks as u32)];
        let shape = KvShape { blocks: 2 * blocks, layers: 2, heads, head_dim };
        let mut cache = backend.kv_cache(shape);
        let rotary = filled(backend, positions, head_dim, 1);
        let bias = values(2 * width, 2);
        let mut flags = backend.buffer(2, 1);
        backend.upload(&[1.0, 0.0], &mut flags, Rows::First(2));
        for slot in 0..=SLOTS {
            let at =
                |i: usize| KvRow { table: (i / positions) as u32, position: (i % positions) as u32, slot };
            let rows: Vec<_> = (0..2 * positions).map(at).collect();
            let rows = KvRows { rows: &rows, tables: &tables };
            let mut qkv = filled(backend, rows.len(), 3 * width, 10 + u64::from(slot));
            let rotation = || Rotation { bias: Some(&bias), angles: &rotary };
            backend.rotate_and_store(&mut qkv, rotation(), rows, None, 1, &mut cache);
            // Those that have stopped leave what is there.
            let mut others = filled(backend, rows.len(), 3 * width, 20);
            let at: Vec<u32> = (0..rows.len() as u32).map(|i| i % 3 % 2).collect();
            let stopped = Some(Stopped { flags: &flags, rows: &at });
            backend.rotate_and_store(&mut others, rotation(), rows, stopped, 1, &mut cache);
            let queries = download(backend, &qkv, rows.len());
            for (some, queries) in
                rows.rows.chunks(batch).zip(queries.chunks(3 * width * batch.min(rows.len())))
            {
                let mut out = backend.buffer(some.len(), width);
                backend.upload(queries, &mut qkv, Rows::First(some.len()));
                backend.attention(&qkv, KvRows { rows: some, ..rows }, 1, &cache, &mut out);
                all.extend(download(backend, &out, some.len()));
            }
            // Neighbours that read other slots.
            let alternating =
                |i: usize| KvRow { slot: i as u32 % (slot + 1), ..rows.rows[positions - 1 - i] };
            let alternating: Vec<_> = (0..9).map(alternating).collect();
            let mut out = backend.buffer(alternating.len(), width);
            backend.upload(
                &queries[..3 * width * alternating.len()],
                &mut qkv,
                Rows::First(alternating.len()),
            );
            backend.attention(&qkv, KvRows { rows: &alternating, ..rows }, 1, &cache, &mut out);
            all.extend(download(backend, &out, alternating.len()));
        }
    }
    all
}

/// Rows of the batches that are compared with rows alone.
const BATCHES: [usize; 7] = [2, 5, 16, 17, 64, 65, 130];

/// Products of rows, `batch` at a time.
fn products_of<B: Backend>(backend: &B, rows: usize, batch: usize) -> Vec<f32> {
    let (outputs, inputs) = (100, 1100);
    // Not exact in any order, so that another one shows.
    let weight: Vec<f32> = values(outputs * inputs, 3).iter().map(|value| (3.0 * value).sin()).collect();
    let weight = Weight::of(&weight, inputs);
    let (matrix, gate) = (backend.matrix(&weight), backend.gate_matrix(&weight));
    let x: Vec<f32> = values(rows * inputs, 4).iter().map(|value| (5.0 * value).sin()).collect();
    let product = |rows: &[f32]| {
        let count = rows.len() / inputs;
        let mut buffer = backend.buffer(count, inputs);
        backend.upload(rows, &mut buffer, Rows::First(count));
        let mut out = backend.buffer(count, outputs);
        backend.matmul(&buffer, count, &matrix, &mut out);
        let mut gated = backend.buffer(count, outputs / 2);
        backend.gated(&buffer, count, &gate, &mut gated);
        let both = [download(backend, &out, count), download(backend, &gated, count)];
        let rows = both[0].chunks(outputs).zip(both[1].chunks(outputs / 2));
        rows.flat_map(|(product, gated)| [product, gated].concat()).collect::<Vec<_>>()
    };
    x.chunks(batch * inputs).flat_map(product).collect()
}

fn alone<B: Backend>(backend: &B) -> Vec<f32> {
    let rows = products_of(backend, *BATCHES.last().unwrap_or(&1), 1);
    BATCHES
        .iter()
        .flat_map(|&batch| rows[..rows.len() / BATCHES[BATCHES.len() - 1] * batch].to_vec())
        .collect()
}

fn batched<B: Backend>(backend: &B) -> Vec<f32> {
    BATCHES.iter().flat_map(|&batch| products_of(backend, batch, batch)).collect()
}
