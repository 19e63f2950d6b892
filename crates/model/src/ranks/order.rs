//! What rank 0 asks of the others, complete in itself.

use windlass_kernels::{BLOCK_POSITIONS, BlockId, KvRow, KvTable};

use crate::network::{Capacity, Launch};

/// One step of all ranks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Order {
    /// Which.
    pub step: Step,
    /// Tables that lanes have begun with before this step.
    pub opened: Vec<OpenedTable>,
    /// The launch's rows.
    pub rows: Vec<OrderRow>,
    /// Of a prelude, one per row.
    pub tokens: Vec<u32>,
    /// Of a prelude, `[rows, hidden]`.
    pub initial: Vec<f32>,
    /// Of a coda, the rows that need their logits.
    pub logits: Vec<u32>,
    /// Of a coda, the rows that need the most likely token alone.
    pub most_likely: Vec<u32>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make memory.
    Allocate(Capacity),
    /// Run the prelude.
    Prelude,
    /// Run the core.
    Core,
    /// Run the coda, and the head where something is wanted of it.
    Coda,
}

impl Default for Step {
    fn default() -> Self {
        Self::Allocate(Capacity::NOTHING)
    }
}

/// A row, with what the launch changes in its lane's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderRow {
    /// Row of the workspace's latents.
    pub latent: u32,
    /// Where it writes and reads.
    pub kv: KvRow,
    /// The block that holds its position at its slot.
    pub block: BlockId,
    /// The highest slot written at its position.
    pub top_slot: u32,
}

/// What a lane's table holds when the lane begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedTable {
    /// Which table.
    pub table: u32,
    /// The blocks of each slot, by position / [`BLOCK_POSITIONS`].
    pub blocks: Vec<Vec<Option<BlockId>>>,
    /// The highest slot of each position.
    pub top_slots: Vec<u32>,
}

impl Order {
    /// Makes room for launches of so many rows, so that filling it allocates nothing.
    pub(super) fn reserve(&mut self, rows: usize, hidden: usize) {
        self.rows.reserve(rows);
        self.tokens.reserve(rows);
        self.initial.reserve(rows * hidden);
        self.logits.reserve(rows);
        self.most_likely.reserve(rows);
    }

    /// Begins an order of `step`, with all that was `opened` before.
    pub(super) fn begin(&mut self, step: Step, opened: &mut Vec<OpenedTable>) {
        self.step = step;
        self.rows.clear();
        self.tokens.clear();
        self.initial.clear();
        self.logits.clear();
        self.most_likely.clear();
        self.opened.clear();
        self.opened.append(opened);
    }

    pub(super) fn set_rows(&mut self, launch: Launch<'_>) {
        let row = |(&latent, &kv): (&u32, &KvRow)| {
            let (table, position) = (&launch.kv.tables[kv.table as usize], kv.position as usize);
            let block = table.block(kv.slot, position).expect("a block before its first write");
            OrderRow { latent, kv, block, top_slot: table.top_slot(position) }
        };
        self.rows.extend(launch.latents.iter().zip(launch.kv.rows).map(row));
    }

    /// Whether something is wanted of the head.
    pub fn wants_head(&self) -> bool {
        !self.logits.is_empty() || !self.most_likely.is_empty()
    }
}

impl OpenedTable {
    pub(super) fn new(table: u32, contents: &KvTable) -> Self {
        let (blocks, top_slots) = contents.contents();
        Self { table, blocks: blocks.to_vec(), top_slots: top_slots.to_vec() }
    }

    /// Makes `table` hold this and nothing else.
    pub(super) fn fill(&self, table: &mut KvTable) {
        table.clear(|_| {});
        for (slot, blocks) in (0..).zip(&self.blocks) {
            for (index, block) in blocks.iter().enumerate() {
                if let Some(block) = *block {
                    table.set_block(slot, index * BLOCK_POSITIONS, block);
                }
            }
        }
        for (position, &top_slot) in self.top_slots.iter().enumerate() {
            table.set_top_slot(position, top_slot);
        }
    }
}

impl OrderRow {
    /// Changes the lane's table as the launch has it.
    pub(super) fn update(&self, table: &mut KvTable) {
        let (slot, position) = (self.kv.slot, self.kv.position as usize);
        match table.block(slot, position) {
            None => table.set_block(slot, position, self.block),
            known => assert_eq!(known, Some(self.block), "ranks differ in where position {position} is"),
        }
        table.set_top_slot(position, self.top_slot);
    }
}
