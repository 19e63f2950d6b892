//! The rows of a launch and the tables of their lanes, as kernels read them.

use super::device::{Argument, Device, Memory};
use super::growing::Growing;
use super::queue::Queue;
use crate::kv::{KvRow, KvRows, KvShape};

/// Words of a row: `KvRow` in `kv.cuh`.
const ROW_WORDS: usize = 6;

/// What was last uploaded. All layers of a launch come with the same rows and tables, of which the first uploads them.
#[derive(Debug)]
pub(super) struct Plan<D: Device> {
    memory: Growing<D>,
    /// Rows, then blocks and highest slots of each table.
    words: Vec<u32>,
    rows: Vec<KvRow>,
    /// By table: where its words are, if a row uses it.
    places: Vec<Option<Place>>,
}

/// Where a table's words are, behind the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    version: u64,
    blocks: u32,
    blocks_per_slot: u32,
    top_slots: u32,
}

impl<D: Device> Default for Plan<D> {
    fn default() -> Self {
        Self { memory: Growing::default(), words: Vec::new(), rows: Vec::new(), places: Vec::new() }
    }
}

impl<D: Device> Plan<D> {
    /// `rows` and what they read on the device: the addresses of the rows and of the words.
    ///
    /// # Panics
    /// If a block is not in a cache of `shape`.
    pub(super) fn get(&mut self, device: &Queue<D>, rows: KvRows<'_>, shape: KvShape) -> [Argument; 2] {
        if !self.is_current(rows) {
            self.build(rows, shape);
            self.memory.upload(device, &self.words);
        }
        let memory = self.memory.reserve(device, size_of_val(self.words.as_slice()));
        debug_assert!(memory.bytes() >= size_of_val(self.words.as_slice()));
        [Argument::start(memory), Argument::at(memory, 4 * ROW_WORDS * rows.len())]
    }

    fn is_current(&self, rows: KvRows<'_>) -> bool {
        let is_same = |row: &KvRow| {
            let place = self.places.get(row.table as usize).copied().flatten();
            place.is_some_and(|place| place.version == rows.table(row).version())
        };
        self.rows == rows.rows && rows.rows.iter().all(is_same)
    }

    fn build(&mut self, rows: KvRows<'_>, shape: KvShape) {
        self.rows.clear();
        self.rows.extend_from_slice(rows.rows);
        self.places.clear();
        self.places.resize(rows.tables.len(), None);
        self.words.clear();
        self.words.resize(ROW_WORDS * rows.len(), 0);
        for (i, row) in rows.rows.iter().enumerate() {
            let place = match self.places[row.table as usize] {
                Some(place) => place,
                None => self.add_table(rows, row, shape),
            };
            let positions = rows.table(row).top_slots().len();
            assert!(positions > row.position as usize, "a row at {} of {positions} positions", row.position);
            let written = rows.written_block(row) as u32;
            let words =
                [row.position, row.slot, written, place.blocks, place.blocks_per_slot, place.top_slots];
            self.words[ROW_WORDS * i..][..ROW_WORDS].copy_from_slice(&words);
        }
    }

    /// Appends the table that `row` uses.
    fn add_table(&mut self, rows: KvRows<'_>, row: &KvRow, shape: KvShape) -> Place {
        let table = rows.table(row);
        let start = ROW_WORDS * rows.len();
        let blocks_per_slot = table.slots().iter().map(Vec::len).max().unwrap_or(0);
        let blocks = self.words.len() - start;
        for slot in table.slots() {
            // Nobody reads where there is no block.
            self.words.extend(slot.iter().map(|block| block.unwrap_or(0)));
            self.words.resize(self.words.len() + blocks_per_slot - slot.len(), 0);
        }
        let largest = self.words[start + blocks..].iter().max().map_or(0, |&block| block as usize);
        assert!(largest < shape.blocks, "block {largest} of a cache of {}", shape.blocks);
        let top_slots = self.words.len() - start;
        self.words.extend_from_slice(table.top_slots());
        let word = |at: usize| u32::try_from(at).expect("tables of a launch have fewer than 2^32 words");
        let place = Place {
            version: table.version(),
            blocks: word(blocks),
            blocks_per_slot: word(blocks_per_slot),
            top_slots: word(top_slots),
        };
        self.places[row.table as usize] = Some(place);
        place
    }
}
