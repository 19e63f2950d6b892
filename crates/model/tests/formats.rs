//! What narrow weights cost: logits of the demo model in bf16 and int8 against those in f32.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use windlass_kernels::{Backend, Cpu, CpuConfig, KvRow, KvRows, KvTable, WeightFormat};
use windlass_model::exit::argmax;
use windlass_model::latent::fill_initial_latent;
use windlass_model::random::Stream;
use windlass_model::random::draws;
use windlass_model::{Capacity, Launch, ModelFolder, Network};

const LANES: u32 = 40;
/// Positions of a lane, one block.
const POSITIONS: u32 = 12;
const ROWS: usize = (LANES * POSITIONS) as usize;
const DEPTH: u32 = 8;

/// A token per row: the beginning of a text, then terms of one digit and operators between them, as the model was
/// trained on.
fn tokens() -> Vec<u32> {
    const BEGIN: u32 = 1;
    const DIGITS: u32 = 5;
    const OPERATORS: u32 = DIGITS + 10;
    const EQUALS: u32 = OPERATORS + 4;
    let token = |lane: u32, position| {
        let [[drawn], ..] = draws::<1>(lane.into(), Stream::Latent, position, 0);
        match position {
            0 => BEGIN,
            _ if position == POSITIONS - 1 => EQUALS,
            _ if position % 2 == 1 => DIGITS + drawn % 10,
            _ => OPERATORS + drawn % 3,
        }
    };
    (0..LANES).flat_map(|lane| (0..POSITIONS).map(move |position| token(lane, position))).collect()
}

/// A table per lane, with a block for each slot.
fn tables() -> Vec<KvTable> {
    let table = |lane| {
        let mut table = KvTable::default();
        for slot in 0..=DEPTH {
            table.set_block(slot, 0, lane * (DEPTH + 1) + slot);
        }
        for position in 0..POSITIONS {
            table.set_top_slot(position as usize, DEPTH);
        }
        table
    };
    (0..LANES).map(table).collect()
}

/// Logits of every row, `[ROWS, vocabulary]`, with weights as `weights`.
fn logits(weights: WeightFormat) -> Vec<f32> {
    let folder = ModelFolder::demo();
    let config = folder.config().unwrap();
    let backend = Cpu::with(CpuConfig { weights, ..CpuConfig::new(2) });
    let network = Network::load(backend, &folder.checkpoint().unwrap(), &config, &mut |_| ()).unwrap();
    let blocks = (LANES * (DEPTH + 1)) as usize;
    let mut workspace = network.workspace(Capacity { rows: ROWS, latents: ROWS, blocks });
    let (tables, latents) = (tables(), (0..ROWS as u32).collect::<Vec<_>>());
    let rows_at = |slot| -> Vec<KvRow> {
        let row = |row| KvRow { table: row / POSITIONS, position: row % POSITIONS, slot };
        (0..ROWS as u32).map(row).collect()
    };
    let ends = rows_at(0);
    let ends = Launch { latents: &latents, kv: KvRows { rows: &ends, tables: &tables } };
    let mut initial = vec![0.0; ROWS * config.hidden];
    for (row, latent) in initial.chunks_exact_mut(config.hidden).enumerate() {
        fill_initial_latent(0, row as u32 % POSITIONS, 1.0, latent);
    }
    network.prelude(&mut workspace, &tokens(), &initial, ends);
    let (mut changes, mut report) = (network.backend().new_report(ROWS), network.backend().new_report(0));
    for depth in 0..DEPTH {
        let rows = rows_at(depth + 1);
        let kv = KvRows { rows: &rows, tables: &tables };
        network.core(&mut workspace, Launch { latents: &latents, kv }, &[], &mut changes);
    }
    network.coda(&mut workspace, ends, &latents, &mut report);
    let mut logits = Vec::new();
    network.backend().receive(&mut report, &mut logits);
    logits
}

/// ‖narrow − exact‖ / ‖exact‖ over all rows, and the share of rows whose largest logit is of the same token.
fn compare(narrow: &[f32], exact: &[f32]) -> (f64, f64) {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let difference = square(&mut narrow.iter().zip(exact).map(|(a, b)| f64::from(a - b)));
    let size = square(&mut exact.iter().map(|&value| f64::from(value)));
    let width = exact.len() / ROWS;
    let rows = narrow.chunks_exact(width).zip(exact.chunks_exact(width));
    let equal = rows.filter(|(narrow, exact)| argmax(narrow) == argmax(exact)).count();
    ((difference / size).sqrt(), equal as f64 / ROWS as f64)
}

#[test]
fn narrow_weights_keep_logits_close_and_the_most_likely_token_nearly_always() {
    let exact = logits(WeightFormat::F32);
    for (format, most_error, least_equal) in
        [(WeightFormat::Bf16, 0.01, 0.98), (WeightFormat::Int8, 0.05, 0.95)]
    {
        let (error, equal) = compare(&logits(format), &exact);
        println!("{format}: relative error {error:.5}, equal {equal:.4}");
        assert!(error < most_error, "{format}: logits are off by {error}");
        assert!(equal > least_equal, "{format}: {equal} of the rows have the same most likely token");
    }
}
