//! The tables of lanes on the device: each has words at a place of its own, and a launch sends those that have changed.
#![expect(unsafe_code, reason = "asks the device for work")]

use super::device::{Argument, Device, Grid, Kernel};
use super::growing::Growing;
use super::queue::Queue;
use crate::kv::{BLOCK_POSITIONS, Entry, KvRows, KvShape, KvTable};

/// Words that there is room for at first.
const FEW_WORDS: usize = 1 << 14;
/// The version of no table.
const NO_VERSION: u64 = u64::MAX;

/// Tables on a device, in the order of a launch's tables.
#[derive(Debug)]
pub(super) struct Tables<D: Device> {
    words: Growing<D>,
    /// How many words there is room for, and how many are some table's.
    capacity: usize,
    used: usize,
    places: Vec<Option<Place>>,
    /// Of each word that has changed where it is and what it becomes.
    pairs: Vec<u32>,
    sent: Growing<D>,
}

/// Where a table's words are: `[slots][blocks_per_slot]`, then the highest slot of each position.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Of the table as it is there.
    version: u64,
    /// Of the cache in which all its blocks are.
    blocks: usize,
    start: usize,
    slots: usize,
    blocks_per_slot: usize,
}

impl<D: Device> Default for Tables<D> {
    fn default() -> Self {
        Self {
            words: Growing::default(),
            capacity: FEW_WORDS,
            used: 0,
            places: Vec::new(),
            pairs: Vec::new(),
            sent: Growing::default(),
        }
    }
}

impl<D: Device> Tables<D> {
    /// Where the words of all tables begin.
    pub(super) fn start(&mut self, device: &Queue<D>) -> Argument {
        Argument::start(self.words.reserve(device, 4 * self.capacity))
    }

    /// Where the table of that number is, if it is there as it is, with blocks of a cache of `shape`.
    pub(super) fn current(&self, number: u32, table: &KvTable, shape: KvShape) -> Option<Place> {
        let place = self.places.get(number as usize).copied().flatten();
        place.filter(|place| place.version == table.version() && place.blocks <= shape.blocks)
    }

    /// Sends what has changed of the tables that `rows` use.
    ///
    /// # Panics
    /// If a block is not in a cache of `shape`.
    pub(super) fn update(&mut self, device: &Queue<D>, rows: KvRows<'_>, shape: KvShape) {
        self.pairs.clear();
        let all_updated =
            |tables: &mut Self| rows.rows.iter().all(|row| tables.note(row.table, rows.table(row), shape));
        while !all_updated(self) {
            // Then each gets a new place, of those that are still used.
            self.pairs.clear();
            self.places.clear();
            self.used = 0;
            self.capacity *= 2;
        }
        let Some(last) = self.pairs.last_chunk::<2>().copied() else { return };
        // Of few lengths, so that lists of launches come again.
        let count = (self.pairs.len() / 2).next_power_of_two().max(Kernel::SetWords.threads());
        while self.pairs.len() < 2 * count {
            self.pairs.extend(last);
        }
        let words = self.start(device);
        let pairs = Argument::start(self.sent.upload(device, &self.pairs));
        let grid = Grid::of(count.div_ceil(Kernel::SetWords.threads()));
        // SAFETY: there are as many pairs, each with the place of a word that there is room for.
        unsafe { device.launch(Kernel::SetWords, grid, &[pairs, Argument::count(count), words]) };
    }

    /// Notes what has changed of a table; false where there is no room for it.
    fn note(&mut self, number: u32, table: &KvTable, shape: KvShape) -> bool {
        if self.current(number, table, shape).is_some() {
            return true;
        }
        let number = number as usize;
        if self.places.len() <= number {
            self.places.resize(number + 1, None);
        }
        let known = self.places[number].filter(|place| place.holds(table) && place.blocks <= shape.blocks);
        let Some(place) = known.or_else(|| self.new_place(table, shape)) else { return false };
        let mut set = |entry: Entry| {
            let value = match entry {
                Entry::Block(slot, index) => {
                    // Nobody reads where there is no block.
                    let Some(block) = table.slots()[slot as usize][index] else { return };
                    assert!((block as usize) < shape.blocks, "block {block} of a cache of {}", shape.blocks);
                    block
                }
                Entry::TopSlot(position) => table.top_slots()[position],
            };
            self.pairs.extend([place.word(entry), value]);
        };
        match table.changes_since(place.version) {
            Some(entries) => entries.for_each(&mut set),
            None => table.entries().for_each(&mut set),
        }
        let blocks = place.blocks.max(shape.blocks);
        self.places[number] = Some(Place { version: table.version(), blocks, ..place });
        true
    }

    /// A place for a table that may grow, if there is room.
    fn new_place(&mut self, table: &KvTable, shape: KvShape) -> Option<Place> {
        let blocks_per_slot = blocks_per_slot(table).next_power_of_two();
        let slots = table.slots().len().next_power_of_two();
        let blocks = shape.blocks;
        let place = Place { version: NO_VERSION, blocks, start: self.used, slots, blocks_per_slot };
        let end = place.word(Entry::TopSlot(blocks_per_slot * BLOCK_POSITIONS)) as usize;
        if end > self.capacity {
            return None;
        }
        self.used = end;
        Some(place)
    }
}

impl Place {
    /// Where the blocks of a table begin, how many there are of each slot, and where the highest slots begin.
    pub(super) fn words(&self) -> [u32; 3] {
        [self.word(Entry::Block(0, 0)), self.blocks_per_slot as u32, self.word(Entry::TopSlot(0))]
    }

    fn word(&self, entry: Entry) -> u32 {
        let at = match entry {
            Entry::Block(slot, index) => slot as usize * self.blocks_per_slot + index,
            Entry::TopSlot(position) => self.slots * self.blocks_per_slot + position,
        };
        u32::try_from(self.start + at).expect("tables have fewer than 2^32 words")
    }

    fn holds(&self, table: &KvTable) -> bool {
        table.slots().len() <= self.slots && blocks_per_slot(table) <= self.blocks_per_slot
    }
}

/// How many blocks of a slot a place must have room for; and for the highest slots of as many positions.
fn blocks_per_slot(table: &KvTable) -> usize {
    let of_slots = table.slots().iter().map(Vec::len).max().unwrap_or(0);
    of_slots.max(table.top_slots().len().div_ceil(BLOCK_POSITIONS)).max(1)
}
