//! What lanes are made of: block tables, K/V blocks, rows of the latent buffer.

use windlass_kernels::{BLOCK_POSITIONS, KvTable};

use crate::blocks::Blocks;
use crate::config::EngineConfig;
use crate::lane::{Grouping, Lane, latents_needed};
use crate::pool::Pool;
use crate::sequence::Sequence;

/// One part in this many of the blocks stays free for lanes that run when a further one opens, and for what is no draft.
pub(crate) const MARGIN: usize = 32;

/// All memory that lanes take and give back.
#[derive(Debug)]
pub(crate) struct Memory {
    /// One per lane there can be.
    pub(crate) tables: Vec<KvTable>,
    free_tables: Vec<usize>,
    pub(crate) blocks: Blocks,
    pub(crate) latents: Pool,
}

/// Memory for one more lane.
#[derive(Debug)]
pub(crate) struct Place {
    /// Index of its block table.
    pub(crate) table: usize,
    /// Rows of the latent buffer for its largest group.
    pub(crate) latents: Vec<u32>,
    /// Prompt positions whose K/V are in the table already, from the prefix cache.
    pub(crate) reused: usize,
}

impl Memory {
    pub(crate) fn new(config: &EngineConfig, blocks: usize, latents: usize) -> Self {
        Self {
            tables: vec![KvTable::default(); config.max_lanes],
            free_tables: (0..config.max_lanes).rev().collect(),
            blocks: Blocks::new(blocks, config.prefix_cache),
            latents: Pool::new(latents),
        }
    }

    /// Takes memory for a lane of the sequence, if there is enough now. What it comes to need later is not reserved.
    /// `is_first`: no lane is open.
    pub(crate) fn place(&mut self, sequence: &Sequence, grouping: Grouping, is_first: bool) -> Option<Place> {
        let table = *self.free_tables.last()?;
        let request = &sequence.request;
        let slots = 1 + request.kv.slots(request.depth.max()) as usize;
        let (blocks, held) = (&mut self.blocks, &mut self.tables[table]);
        held.reserve(slots, request.positions());
        let granularity = sequence.prefix_granularity(grouping.segment);
        let reused = granularity.map_or(0, |granularity| blocks.reuse(request, granularity, held));
        let needed = sequence.blocks_now() - reused / BLOCK_POSITIONS * slots;
        let margin = if is_first { 0 } else { blocks.total() / MARGIN };
        let rows = latents_needed(sequence, reused, grouping);
        if needed + margin > blocks.available() || rows > self.latents.free() {
            blocks.release(held);
            return None;
        }
        self.free_tables.pop();
        let latents = (0..rows).map_while(|_| self.latents.take()).collect();
        Some(Place { table, latents, reused })
    }

    /// Takes a lane's memory back.
    pub(crate) fn close(&mut self, lane: Lane) -> Sequence {
        let table = lane.table;
        self.free_tables.push(table);
        lane.close(&mut self.tables[table], &mut self.blocks, &mut self.latents)
    }

    /// Whether no lane holds anything.
    pub(crate) fn is_whole(&self) -> bool {
        self.blocks.is_whole()
            && self.latents.free() == self.latents.total()
            && self.free_tables.len() == self.tables.len()
    }
}
