//! Every operation of the CPU backend against its plain twin, and the same bits for every batch, thread count and
//! instruction set.

use half::bf16;
use windlass_kernels::{
    BLOCK_POSITIONS, Backend, Commit, Cpu, CpuConfig, Draw, Draws, Isa, KvRow, KvRows, KvShape, KvTable,
    LogitChange, Norm, NormWeights, Plain, Rotation, Rows, Stop, Stopped, Weight, WeightFormat,
};

/// Relative error allowed between sums in different orders.
const TOLERANCE: f32 = 2e-5;

/// Values in −1..1 from a small generator.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32) / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn filled<B: Backend>(backend: &B, rows: usize, width: usize, seed: u64) -> B::Buffer {
    let mut buffer = backend.buffer(rows, width);
    backend.upload(&values(rows * width, seed), &mut buffer, Rows::First(rows));
    buffer
}

fn download<B: Backend>(backend: &B, buffer: &B::Buffer, rows: usize) -> Vec<f32> {
    let mut values = Vec::new();
    backend.download(buffer, rows, &mut values);
    values
}

/// The backends that must agree bit for bit.
fn cpus() -> Vec<Cpu> {
    cpus_of(WeightFormat::F32)
}

/// The same with such weights, apart from products in bf16.
fn cpus_of(weights: WeightFormat) -> Vec<Cpu> {
    let cpu = |threads, isa| Cpu::with(CpuConfig { isa, weights, ..CpuConfig::new(threads) });
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    isas.flat_map(|isa| [cpu(1, isa), cpu(3, isa)]).collect()
}

/// Runs `operation` on the twin and on every CPU backend and compares.
fn compare(name: &str, twin: &[f32], results: &[Vec<f32>]) {
    for result in results {
        assert_eq!(result, &results[0], "{name}: bits differ between instruction sets or thread counts");
    }
    assert_eq!(twin.len(), results[0].len(), "{name}: shapes differ");
    for (i, (a, b)) in twin.iter().zip(&results[0]).enumerate() {
        assert!((a - b).abs() <= TOLERANCE * a.abs().max(1.0), "{name}[{i}]: twin {a}, cpu {b}");
    }
}

macro_rules! parity {
    ($test:ident, $operation:ident) => {
        #[test]
        fn $test() {
            let twin = $operation(&Plain);
            let results: Vec<_> = cpus().iter().map(|cpu| $operation(cpu)).collect();
            compare(stringify!($operation), &twin, &results);
        }
    };
}

fn products<B: Backend>(backend: &B) -> Vec<f32> {
    let mut all = Vec::new();
    for (rows, outputs, inputs) in
        [(1, 33, 17), (2, 16, 80), (3, 240, 80), (7, 5, 64), (21, 704, 128), (90, 384, 128)]
    {
        let weight = backend.matrix(&Weight::of(&values(outputs * inputs, 3), inputs));
        let x = filled(backend, rows, inputs, 5);
        let mut out = backend.buffer(rows, outputs);
        backend.matmul(&x, rows, &weight, &mut out);
        all.extend(download(backend, &out, rows));
    }
    all
}
parity!(products_match_the_twin, products);

fn adapted<B: Backend>(backend: &B) -> Vec<f32> {
    let width = 80;
    let weight = backend.matrix(&Weight::of(&values(width * 2 * width, 1), 2 * width));
    let [latent, embedding] = [3, 4].map(|seed| filled(backend, 9, width, seed));
    let rows = [7, 0, 3, 8, 1];
    let mut out = backend.buffer(rows.len(), width);
    backend.adapter(&latent, &embedding, Rows::At(&rows), &weight, &mut out);
    download(backend, &out, rows.len())
}
parity!(the_adapter_matches_the_twin, adapted);

fn rowwise<B: Backend>(backend: &B) -> Vec<f32> {
    let (rows, width) = (5, 176);
    let weight = values(width, 1);
    let half = filled(backend, rows, width, 2);
    let mut normed = backend.buffer(rows, width);
    backend.rms_norm(&half, Rows::At(&[4, 2, 0, 1, 3]), &weight, 1e-6, &mut normed);
    backend.add_rms_norm(&mut normed, &half, rows, &weight, 1e-6);
    let mut again = backend.buffer(rows, width);
    let weights = NormWeights { first: &weight, next: &values(width, 9), eps: 1e-6 };
    backend.add_norm_norm(&mut normed, &half, rows, weights, &mut again);
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
    let mut out = download(backend, &again, rows);
    let (mut report, mut changes) = (backend.new_report(0), Vec::new());
    for stops in [&stops[..], &[]] {
        let norm = Norm { weight: &weight, eps: 1e-6 };
        let commit = Commit { latents: &mut latents, rows: &[6, 0, 2, 7, 1], flags: &mut flags, stops };
        backend.add_norm_commit(&mut normed, &half, norm, commit, &mut report);
        backend.receive(&mut report, &mut changes);
        out.extend(download(backend, &latents, 8));
        out.extend(download(backend, &flags, 8));
        for change in &changes {
            let sizes = [change.current_squared, change.previous_squared];
            out.extend([change.difference_squared, change.dot].into_iter().chain(sizes));
        }
    }
    let flags = download(backend, &flags, 8);
    assert_eq!(flags, [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "who has stopped");
    out
}
parity!(row_operations_match_the_twin, rowwise);

fn gated<B: Backend>(backend: &B) -> Vec<f32> {
    let mut all = Vec::new();
    for (rows, outputs, inputs) in [(1, 33, 17), (3, 80, 40), (21, 352, 128)] {
        let weight = backend.gate_matrix(&Weight::of(&values(2 * outputs * inputs, 3), inputs));
        let x = filled(backend, rows, inputs, 5);
        let mut out = backend.buffer(rows, outputs);
        backend.gated(&x, rows, &weight, &mut out);
        all.extend(download(backend, &out, rows));
    }
    all
}
parity!(gated_products_match_the_twin, gated);

fn largest<B: Backend>(backend: &B) -> Vec<f32> {
    let (rows, outputs, inputs) = (9, 300, 40);
    let mut weight = values(outputs * inputs, 3);
    // Two equal outputs, and one that is no number.
    weight.copy_within(200 * inputs..201 * inputs, 70 * inputs);
    weight[5 * inputs] = f32::NAN;
    let weight = backend.matrix(&Weight::of(&weight, inputs));
    let (mut report, mut found) = (backend.new_report(0), Vec::new());
    let mut x = filled(backend, rows, inputs, 5);
    backend.upload(&vec![f32::NAN; inputs], &mut x, Rows::At(&[8]));
    backend.upload(&values(outputs * inputs, 3)[200 * inputs..201 * inputs], &mut x, Rows::At(&[7]));
    backend.largest_outputs(&x, rows, &weight, &mut report);
    backend.receive(&mut report, &mut found);
    let outputs = (found[7].output, found[8].output);
    assert_eq!(outputs, (70, 0), "the lowest of equal ones; the first if none is a number");
    assert!(found[8].value.is_nan());
    found[..8].iter().flat_map(|found| [found.output as f32, found.value]).collect()
}
parity!(largest_outputs_match_the_twin, largest);

fn drawn<B: Backend>(backend: &B) -> Vec<f32> {
    let (rows, outputs) = (40, 2000);
    let mut logits = filled(backend, rows, outputs, 3);
    let draw = |row: usize| Draw {
        at: (row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        temperature: [1.0, 0.3, 0.05, 0.0][row % 4],
        top_k: [u32::MAX, 50][row / 4 % 2],
        top_p: [1.0, 0.7, 0.99][row % 3],
        min_p: [0.0, 0.1][row / 8 % 2],
        first_change: row as u32 % 2,
        changes: row as u32 % 3,
    };
    let change = |output| LogitChange { output, bias: 0.3, repetition: 1.2, penalty: 0.1 };
    let draws: Vec<_> = (0..rows).map(draw).collect();
    let (mut report, mut found) = (backend.new_report(rows), Vec::new());
    backend.draw(&mut logits, Draws { rows: &draws, changes: &[17, 1999, 4].map(change) }, &mut report);
    backend.receive(&mut report, &mut found);
    found.into_iter().map(|output| output as f32).collect()
}
parity!(draws_match_the_twin, drawn);

const SLOTS: u32 = 4;

/// A lane whose positions hold 1 to [`SLOTS`] core slots, in no regular order.
fn lane(positions: usize) -> KvTable {
    let mut table = KvTable::default();
    let mut block = 0;
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

fn shape(positions: usize, heads: usize, head_dim: usize) -> KvShape {
    let blocks = positions.div_ceil(BLOCK_POSITIONS) * (SLOTS as usize + 1);
    KvShape { blocks, layers: 2, heads, head_dim }
}

/// Queries at every position, reading earlier ones at slots they may not have.
fn attended<B: Backend>(backend: &B, positions: usize, heads: usize, head_dim: usize) -> Vec<f32> {
    let width = heads * head_dim;
    let tables = [lane(positions)];
    let mut cache = backend.kv_cache(shape(positions, heads, head_dim));
    let rotary = filled(backend, positions, head_dim, 1);
    let bias = values(2 * width, 2);
    let mut flags = backend.buffer(2, 1);
    backend.upload(&[1.0, 0.0], &mut flags, Rows::First(2));
    let mut out = Vec::new();
    for slot in 0..=SLOTS {
        let rows: Vec<_> = (0..positions as u32).map(|position| KvRow { table: 0, position, slot }).collect();
        let rows = KvRows { rows: &rows, tables: &tables };
        let mut qkv = filled(backend, positions, 3 * width, 10 + u64::from(slot));
        let rotation = || Rotation { bias: Some(&bias), angles: &rotary };
        backend.rotate_and_store(&mut qkv, rotation(), rows, None, 1, &mut cache);
        let mut others = filled(backend, positions, 3 * width, 20);
        let at: Vec<u32> = (0..positions as u32).map(|i| i % 3 % 2).collect();
        let stopped = Some(Stopped { flags: &flags, rows: &at });
        backend.rotate_and_store(&mut others, rotation(), rows, stopped, 1, &mut cache);
        let mut attended = backend.buffer(positions, width);
        backend.attention(&qkv, rows, 1, &cache, &mut attended);
        out.extend(download(backend, &attended, positions));
    }
    out
}

fn small_attention<B: Backend>(backend: &B) -> Vec<f32> {
    attended(backend, 41, 5, 16)
}
parity!(attention_over_paged_slots_matches_the_twin, small_attention);

/// Large enough for several threads.
fn large_attention<B: Backend>(backend: &B) -> Vec<f32> {
    attended(backend, 80, 16, 56)
}
parity!(attention_on_several_threads_matches_the_twin, large_attention);

#[test]
fn keys_and_values_are_rounded_to_bf16_beside_narrow_weights() {
    // Heads of whole vectors and more.
    let (positions, heads, head_dim) = (80, 5, 84);
    let width = heads * head_dim;
    let tables = [lane(positions)];
    let rows: Vec<_> = (0..positions as u32).map(|position| KvRow { table: 0, position, slot: 0 }).collect();
    let rows = KvRows { rows: &rows, tables: &tables };
    let attention = |cpu: &Cpu, qkv: &[f32]| {
        let mut cache = cpu.kv_cache(shape(positions, heads, head_dim));
        // Nothing is turned.
        let mut angles = cpu.buffer(positions, head_dim);
        cpu.upload(&[1.0, 0.0].repeat(positions * head_dim / 2), &mut angles, Rows::First(positions));
        let mut buffer = cpu.buffer(positions, 3 * width);
        cpu.upload(qkv, &mut buffer, Rows::First(positions));
        let rotation = Rotation { bias: None, angles: &angles };
        cpu.rotate_and_store(&mut buffer, rotation, rows, None, 1, &mut cache);
        let mut out = cpu.buffer(positions, width);
        cpu.attention(&buffer, rows, 1, &cache, &mut out);
        download(cpu, &out, positions)
    };
    let qkv = values(positions * 3 * width, 7);
    let rounded: Vec<f32> = (0..)
        .zip(&qkv)
        .map(|(i, &value)| if i % (3 * width) < width { value } else { bf16::from_f32(value).to_f32() })
        .collect();
    let expected = attention(&Cpu::new(1), &rounded);
    assert_ne!(attention(&Cpu::new(1), &qkv), expected, "rounding makes no difference");
    for cpu in [WeightFormat::Bf16, WeightFormat::Int8].into_iter().flat_map(cpus_of) {
        assert_eq!(attention(&cpu, &qkv), expected, "{cpu:?}");
    }
}

#[test]
fn a_row_has_the_same_bits_in_every_batch() {
    let (outputs, inputs, rows) = (100, 72, 23);
    for cpu in cpus() {
        let weight = cpu.matrix(&Weight::of(&values(outputs * inputs, 3), inputs));
        let x = values(rows * inputs, 4);
        let product = |rows: &[f32]| {
            let count = rows.len() / inputs;
            let mut buffer = cpu.buffer(count, inputs);
            cpu.upload(rows, &mut buffer, Rows::First(count));
            let mut out = cpu.buffer(count, outputs);
            cpu.matmul(&buffer, count, &weight, &mut out);
            download(&cpu, &out, count)
        };
        let alone: Vec<f32> = x.chunks(inputs).flat_map(product).collect();
        for batch in 2..=rows {
            let batched: Vec<f32> = x.chunks(batch * inputs).flat_map(product).collect();
            assert_eq!(alone, batched, "batches of {batch}");
        }
    }
}

#[test]
fn unseen_garbage_in_a_block_never_reaches_attention() {
    let cpu = Cpu::new(1);
    let (positions, heads, head_dim) = (41, 5, 16);
    let width = heads * head_dim;
    let tables = [lane(positions)];
    let rotary = filled(&cpu, positions, head_dim, 1);
    let attend = |garbage: f32| {
        let mut cache = cpu.kv_cache(shape(positions, heads, head_dim));
        let everywhere: Vec<_> = (0..positions as u32)
            .flat_map(|position| (0..=SLOTS).map(move |slot| (position, slot)))
            .map(|(position, slot)| KvRow { table: 0, position, slot })
            .collect();
        let everywhere = KvRows { rows: &everywhere, tables: &tables };
        let mut qkv = cpu.buffer(everywhere.len(), 3 * width);
        cpu.upload(&vec![garbage; everywhere.len() * 3 * width], &mut qkv, Rows::First(everywhere.len()));
        let rotation = || Rotation { bias: None, angles: &rotary };
        cpu.rotate_and_store(&mut qkv, rotation(), everywhere, None, 0, &mut cache);
        let rows: Vec<_> = (0..20).map(|position| KvRow { table: 0, position, slot: 0 }).collect();
        let rows = KvRows { rows: &rows, tables: &tables };
        let mut qkv = filled(&cpu, 20, 3 * width, 3);
        cpu.rotate_and_store(&mut qkv, rotation(), rows, None, 0, &mut cache);
        let mut out = cpu.buffer(20, width);
        cpu.attention(&qkv, rows, 0, &cache, &mut out);
        download(&cpu, &out, 20)
    };
    assert_eq!(attend(0.0), attend(f32::NAN));
}
