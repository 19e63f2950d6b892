//! What a device of a split model is asked to do, complete in itself.

use windlass_kernels::{BLOCK_POSITIONS, BlockId, Draw, Draws, KvRow, KvTable, LogitChange, Stop};

use crate::network::{Capacity, Launch};
use crate::runner::Wanted;

/// One step of a device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Order {
    /// Which.
    pub step: Step,
    /// Tables that lanes have begun with before this step.
    pub opened: Vec<OpenedTable>,
    /// Highest slots that have become lower before this step.
    pub lowered: Vec<LoweredSlot>,
    /// The launch's rows.
    pub rows: Vec<OrderRow>,
    /// Of a prelude, one per row.
    pub tokens: Vec<u32>,
    /// `[rows, hidden]`: of a prelude what latents become; of latents the same, and of a core behind the first stage what the stage before
    /// left, where devices do not hand that to each other.
    pub values: Vec<f32>,
    /// Of a core, by what each row stops; without any none does.
    pub stops: Vec<Stop>,
    /// Of a coda, the rows that need their logits.
    pub logits: Vec<u32>,
    /// Of a coda, the rows that need the most likely token alone.
    pub most_likely: Vec<u32>,
    /// Of a coda, the rows for which rank 0 draws a token from the logits of all.
    pub drawn: Vec<u32>,
    /// How each of these is drawn. Only rank 0 is told.
    pub draws: Vec<Draw>,
    /// Changes of logits before, of all of them. Only rank 0 is told.
    pub changes: Vec<LogitChange>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make memory.
    Allocate(Capacity),
    /// Take over the rows' latents, and run the prelude where that is.
    Prelude,
    /// Take over the rows' latents.
    Latents,
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

/// The highest slot of a position whose row stopped before launches that have shown a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoweredSlot {
    /// Which table.
    pub table: u32,
    /// Which position.
    pub position: u32,
    /// The highest slot that counts.
    pub slot: u32,
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
    /// Makes room for launches of so many rows, so that filling it allocates nothing but for changes of logits, which grow.
    pub(crate) fn reserve(&mut self, rows: usize, hidden: usize) {
        self.rows.reserve(rows);
        self.lowered.reserve(rows);
        self.tokens.reserve(rows);
        self.values.reserve(rows * hidden);
        self.stops.reserve(rows);
        self.logits.reserve(rows);
        self.most_likely.reserve(rows);
        self.drawn.reserve(rows);
        self.draws.reserve(rows);
    }

    /// Begins an order of `step`, with nothing else in it.
    pub(crate) fn begin(&mut self, step: Step) {
        self.step = step;
        self.opened.clear();
        self.lowered.clear();
        self.rows.clear();
        self.tokens.clear();
        self.values.clear();
        self.stops.clear();
        self.logits.clear();
        self.most_likely.clear();
        self.drawn.clear();
        self.draws.clear();
        self.changes.clear();
    }

    /// Becomes what ranks but the first are told of `other`, in the memory that it has.
    pub fn copy(&mut self, other: &Self) {
        let Self { step, opened, lowered, rows, tokens, values, stops, logits, most_likely, drawn, .. } =
            other;
        self.begin(*step);
        self.opened.extend_from_slice(opened);
        self.lowered.extend_from_slice(lowered);
        self.rows.extend_from_slice(rows);
        self.tokens.extend_from_slice(tokens);
        self.values.extend_from_slice(values);
        self.stops.extend_from_slice(stops);
        self.logits.extend_from_slice(logits);
        self.most_likely.extend_from_slice(most_likely);
        self.drawn.extend_from_slice(drawn);
    }

    pub(crate) fn set_entering(&mut self, tokens: &[u32], initial: &[f32], launch: Launch<'_>) {
        self.set_rows(launch);
        self.tokens.extend_from_slice(tokens);
        self.values.extend_from_slice(initial);
    }

    pub(crate) fn set_wanted(&mut self, wanted: Wanted<'_>) {
        self.logits.extend_from_slice(wanted.logits);
        self.most_likely.extend_from_slice(wanted.most_likely);
        self.drawn.extend_from_slice(wanted.drawn);
    }

    pub(crate) fn set_draws(&mut self, draws: Draws<'_>) {
        self.draws.extend_from_slice(draws.rows);
        self.changes.extend_from_slice(draws.changes);
    }

    pub(crate) fn set_rows(&mut self, launch: Launch<'_>) {
        let row = |(&latent, &kv): (&u32, &KvRow)| {
            let (table, position) = (&launch.kv.tables[kv.table as usize], kv.position as usize);
            let block = table.block(kv.slot, position).expect("a block before its first write");
            OrderRow { latent, kv, block, top_slot: table.top_slot(position) }
        };
        self.rows.extend(launch.latents.iter().zip(launch.kv.rows).map(row));
    }

    /// Whether a rank has something to hand to the host.
    pub fn wants_head(&self) -> bool {
        !self.logits.is_empty() || !self.most_likely.is_empty()
    }
}

impl OpenedTable {
    pub(crate) fn new(table: u32, contents: &KvTable) -> Self {
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
