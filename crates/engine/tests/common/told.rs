//! A runner that keeps tables of its own, from what it is told, as ranks do.

use std::collections::BTreeMap;

use windlass_kernels::{Arithmetic, KvTable, LatentChange, Stop};
use windlass_model::{Busy, Capacity, Found, Launch, ModelConfig, Part, Runner, Wanted};

/// Runs everything on `runner`, and asserts at every core launch that its own tables say what the engine's do, of all positions that
/// rows read.
pub struct Told<R> {
    pub runner: R,
    tables: BTreeMap<u32, KvTable>,
}

impl<R: Runner> Told<R> {
    pub fn new(runner: R) -> Self {
        Self { runner, tables: BTreeMap::new() }
    }

    /// Takes in what a launch shows: each row's own block, and the highest slot of its position.
    fn see(&mut self, launch: Launch<'_>) {
        for row in launch.kv.rows {
            let (position, shown) = (row.position as usize, &launch.kv.tables[row.table as usize]);
            let table = self.tables.get_mut(&row.table).expect("a table is opened before its rows run");
            let block = shown.block(row.slot, position).expect("a row writes to a block");
            match table.block(row.slot, position) {
                None => table.set_block(row.slot, position, block),
                Some(known) => assert_eq!(known, block, "the block of position {position} changed"),
            }
            table.set_top_slot(position, shown.top_slot(position));
        }
    }
}

impl<R: Runner> Runner for Told<R> {
    fn config(&self) -> &ModelConfig {
        self.runner.config()
    }

    fn arithmetic(&self) -> Arithmetic {
        self.runner.arithmetic()
    }

    fn allocate(&mut self, capacity: Capacity) {
        self.runner.allocate(capacity);
    }

    fn launches_under_way(&self) -> usize {
        self.runner.launches_under_way()
    }

    fn runs_ahead(&self) -> bool {
        self.runner.runs_ahead()
    }

    fn draws(&self) -> bool {
        self.runner.draws()
    }

    fn open(&mut self, table: u32, contents: &KvTable) {
        self.tables.insert(table, contents.clone());
        self.runner.open(table, contents);
    }

    fn lower(&mut self, table: u32, position: usize, slot: u32) {
        let known = self.tables.get_mut(&table).expect("a table is opened before its rows stop");
        assert!(known.top_slot(position) > slot, "position {position} is not lowered");
        known.set_top_slot(position, slot);
        self.runner.lower(table, position, slot);
    }

    fn prelude(&mut self, tokens: &[u32], initial: &[f32], launch: Launch<'_>) {
        self.see(launch);
        self.runner.prelude(tokens, initial, launch);
    }

    fn start_core(&mut self, launch: Launch<'_>, stops: &[Stop]) {
        self.see(launch);
        for row in launch.kv.rows {
            let top_slots = |table: &KvTable| table.contents().1[..=row.position as usize].to_vec();
            let shown = top_slots(&launch.kv.tables[row.table as usize]);
            assert_eq!(top_slots(&self.tables[&row.table]), shown, "{row:?} was not told of all it reads");
        }
        self.runner.start_core(launch, stops);
    }

    fn next_done(&mut self) -> Part {
        self.runner.next_done()
    }

    fn finish_core(&mut self, changes: &mut Vec<LatentChange>) {
        self.runner.finish_core(changes);
    }

    fn start_coda(&mut self, launch: Launch<'_>, wanted: Wanted<'_>) {
        self.see(launch);
        self.runner.start_coda(launch, wanted);
    }

    fn finish_coda(&mut self, found: &mut Found) {
        self.runner.finish_coda(found);
    }

    fn busy(&self) -> Option<Busy> {
        self.runner.busy()
    }
}
