//! The rows of a launch, as kernels read them, and the tables of their lanes.

use super::device::{Argument, Device};
use super::growing::Growing;
use super::queue::Queue;
use super::tables::Tables;
use crate::kv::{KvRow, KvRows, KvShape};

/// Words of a row: `KvRow` in `kv.cuh`.
const ROW_WORDS: usize = 6;
/// Words of a tile: `Tile` in `attention_tiles.cu`.
const TILE_WORDS: usize = 2;
/// Rows of a tile at most, as there.
const TILE_ROWS: usize = 16;

/// A launch's rows on the device, with what they read.
pub(super) struct Planned {
    /// The rows.
    pub(super) rows: Argument,
    /// The tables' words.
    pub(super) words: Argument,
    /// Tiles of rows that follow on each other, are of one table and read the same slots, and how many there are.
    pub(super) tiles: Argument,
    pub(super) tile_count: usize,
}

/// What was last sent. All layers of a launch come with the same rows and tables, of which the first sends them.
#[derive(Debug)]
pub(super) struct Plan<D: Device> {
    memory: Growing<D>,
    /// Rows, then tiles.
    words: Vec<u32>,
    rows: Vec<KvRow>,
    tables: Tables<D>,
}

impl<D: Device> Default for Plan<D> {
    fn default() -> Self {
        Self { memory: Growing::default(), words: Vec::new(), rows: Vec::new(), tables: Tables::default() }
    }
}

impl<D: Device> Plan<D> {
    /// `rows` on the device.
    ///
    /// # Panics
    /// If a block is not in a cache of `shape`.
    pub(super) fn get(&mut self, device: &Queue<D>, rows: KvRows<'_>, shape: KvShape) -> Planned {
        if !self.is_current(rows, shape) {
            self.tables.update(device, rows, shape);
            self.build(rows, shape);
            self.memory.upload(device, &self.words);
        }
        let (memory, tiles_at) =
            (self.memory.reserve(device, size_of_val(self.words.as_slice())), ROW_WORDS * rows.len());
        Planned {
            rows: Argument::start(memory),
            words: self.tables.start(device),
            tiles: Argument::at(memory, 4 * tiles_at),
            tile_count: (self.words.len() - tiles_at) / TILE_WORDS,
        }
    }

    fn is_current(&self, rows: KvRows<'_>, shape: KvShape) -> bool {
        let is_same = |row: &KvRow| self.tables.current(row.table, rows.table(row), shape).is_some();
        self.rows == rows.rows && rows.rows.iter().all(is_same)
    }

    fn build(&mut self, rows: KvRows<'_>, shape: KvShape) {
        self.rows.clear();
        self.rows.extend_from_slice(rows.rows);
        self.words.clear();
        for row in rows.rows {
            let table = rows.table(row);
            let positions = table.top_slots().len();
            assert!(positions > row.position as usize, "a row at {} of {positions} positions", row.position);
            let place = self.tables.current(row.table, table, shape).expect("a table that was just sent");
            let [blocks, blocks_per_slot, top_slots] = place.words();
            let words: [u32; ROW_WORDS] =
                [row.position, row.slot, rows.written_block(row) as u32, blocks, blocks_per_slot, top_slots];
            self.words.extend(words);
        }
        let mut first = 0;
        let is_together = |a: &KvRow, b: &KvRow| a.table == b.table && a.slot == b.slot;
        for alike in rows.rows.chunk_by(is_together) {
            for tile in alike.chunks(TILE_ROWS) {
                self.words.extend([first, tile.len() as u32]);
                first += tile.len() as u32;
            }
        }
    }
}
