//! Where keys and values live: blocks of positions, addressed through a table per lane.

#[cfg(feature = "cuda")]
mod history;

#[cfg(feature = "cuda")]
pub(crate) use history::Entry;
#[cfg(feature = "cuda")]
use history::History;

/// Positions of one block.
pub const BLOCK_POSITIONS: usize = 16;

/// A block of the cache.
pub type BlockId = u32;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvFormat {
    /// As computed.
    F32,
    /// Rounded to bf16.
    Bf16,
}

impl KvFormat {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// Shape of a K/V cache.
///
/// One block holds keys and values of [`BLOCK_POSITIONS`] positions for `layers` layers at one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Blocks in all.
    pub blocks: usize,
    /// Layers side by side in a block.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Values of one head.
    pub head_dim: usize,
}

impl KvShape {
    /// Values of keys (or of values) of one layer in a block.
    pub(crate) fn side_len(&self) -> usize {
        self.heads * self.head_dim * BLOCK_POSITIONS
    }

    /// Where keys of `layer` begin in `block` of a cache `[blocks][layers][keys, values]`; values begin one side later.
    #[inline(always)]
    pub(crate) fn keys_at(&self, block: usize, layer: usize) -> usize {
        block * self.block_len() + layer * 2 * self.side_len()
    }

    /// Values of one block.
    pub fn block_len(&self) -> usize {
        2 * self.layers * self.side_len()
    }
}

/// The blocks of one lane, by slot and position.
///
/// Slot 0 belongs to the prelude and coda layers; slot s + 1 to the core layers' K/V slot s. A position that holds
/// core slots `0..n` has `top_slot` n, so a reader that wants slot w of it reads `min(w, n)`; with w = 0, always 0.
#[derive(Debug, Clone, Default)]
pub struct KvTable {
    /// `[slot][position / BLOCK_POSITIONS]`; none where no position of the block got that deep.
    blocks: Vec<Vec<Option<BlockId>>>,
    /// `[position]`.
    top_slot: Vec<u32>,
    /// What changed lately, so that a device can bring its copy up to date.
    #[cfg(feature = "cuda")]
    history: History,
}

#[cfg(feature = "cuda")]
impl KvTable {
    /// Differs from that of every table that holds anything else.
    pub(crate) fn version(&self) -> u64 {
        self.history.version()
    }

    /// The entries that changed since it had `version`; none where it does not know.
    pub(crate) fn changes_since(&self, version: u64) -> Option<impl Iterator<Item = Entry>> {
        self.history.since(version)
    }

    /// All entries.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        let of_slot =
            |(slot, blocks): (u32, &Vec<_>)| (0..blocks.len()).map(move |index| Entry::Block(slot, index));
        let blocks = (0..).zip(&self.blocks).flat_map(of_slot);
        blocks.chain((0..self.top_slot.len()).map(Entry::TopSlot))
    }

    /// `[slot][position / BLOCK_POSITIONS]`.
    pub(crate) fn slots(&self) -> &[Vec<Option<BlockId>>] {
        &self.blocks
    }

    /// `[position]`.
    pub(crate) fn top_slots(&self) -> &[u32] {
        &self.top_slot
    }
}

impl KvTable {
    /// The block that holds `position` at `slot`, if there is one.
    pub fn block(&self, slot: u32, position: usize) -> Option<BlockId> {
        *self.blocks.get(slot as usize)?.get(position / BLOCK_POSITIONS)?
    }

    /// Makes `block` hold `position`, and its neighbours in the block, at `slot`.
    ///
    /// # Panics
    /// If another block does already.
    pub fn set_block(&mut self, slot: u32, position: usize, block: BlockId) {
        let index = position / BLOCK_POSITIONS;
        #[cfg(feature = "cuda")]
        self.history.note(Entry::Block(slot, index));
        let (slot, Self { blocks, .. }) = (slot as usize, self);
        if blocks.len() <= slot {
            blocks.resize_with(slot + 1, Vec::new);
        }
        let blocks = &mut blocks[slot];
        if blocks.len() <= index {
            blocks.resize(index + 1, None);
        }
        let previous = blocks[index].replace(block);
        assert_eq!(previous, None, "slot {slot} already has a block for position {position}");
    }

    /// Makes room for `positions` at slots below `slots`, so that filling it allocates nothing.
    pub fn reserve(&mut self, slots: usize, positions: usize) {
        #[cfg(feature = "cuda")]
        self.history.reserve();
        let Self { blocks, top_slot, .. } = self;
        if blocks.len() < slots {
            blocks.resize_with(slots, Vec::new);
        }
        for blocks in &mut blocks[..slots] {
            blocks.reserve(positions.div_ceil(BLOCK_POSITIONS));
        }
        top_slot.reserve(positions);
    }

    /// Hands every block to `release` and forgets every position.
    pub fn clear(&mut self, mut release: impl FnMut(BlockId)) {
        #[cfg(feature = "cuda")]
        self.history.forget();
        let Self { blocks, top_slot, .. } = self;
        top_slot.clear();
        for blocks in blocks {
            blocks.drain(..).flatten().for_each(&mut release);
        }
    }

    /// Sets the highest slot written at `position`.
    pub fn set_top_slot(&mut self, position: usize, slot: u32) {
        #[cfg(feature = "cuda")]
        if self.top_slot.get(position) != Some(&slot) {
            // Those before it become zero where there were none.
            let first = self.top_slot.len().min(position);
            (first..=position).for_each(|changed| self.history.note(Entry::TopSlot(changed)));
        }
        let Self { top_slot, .. } = self;
        if top_slot.len() <= position {
            top_slot.resize(position + 1, 0);
        }
        top_slot[position] = slot;
    }

    /// The highest slot written at `position`.
    pub fn top_slot(&self, position: usize) -> u32 {
        self.top_slot[position]
    }

    /// All it holds: the blocks of each slot, by position / [`BLOCK_POSITIONS`], and the highest slot of each position.
    pub fn contents(&self) -> (&[Vec<Option<BlockId>>], &[u32]) {
        (&self.blocks, &self.top_slot)
    }

    /// The slot to read at `position` by a row that wants `slot`.
    #[inline]
    pub(crate) fn readable_slot(&self, slot: u32, position: usize) -> u32 {
        slot.min(self.top_slot[position])
    }

    /// The block to read for `position` at a slot that [`Self::readable_slot`] gave.
    #[inline]
    pub(crate) fn readable_block(&self, slot: u32, position: usize) -> usize {
        self.blocks[slot as usize][position / BLOCK_POSITIONS].expect("a block before its first read")
            as usize
    }
}

/// Where one row writes its keys and values, and reads those of its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvRow {
    /// Index of its lane's table.
    pub table: u32,
    /// The row's position in its lane.
    pub position: u32,
    /// The slot it writes, and wants from earlier positions, as an index of the table.
    pub slot: u32,
}

/// The rows of a launch and the tables of their lanes. `top_slot` of every position up to a row's own must cover what
/// the launch writes.
#[derive(Debug, Clone, Copy)]
pub struct KvRows<'a> {
    /// One per row of the launch.
    pub rows: &'a [KvRow],
    /// One per lane, as [`KvRow::table`] counts them.
    pub tables: &'a [KvTable],
}

impl<'a> KvRows<'a> {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// A row's lane's table.
    pub(crate) fn table(&self, row: &KvRow) -> &'a KvTable {
        &self.tables[row.table as usize]
    }

    /// The block that `row` writes to.
    pub(crate) fn written_block(&self, row: &KvRow) -> usize {
        let block = self.table(row).block(row.slot, row.position as usize);
        block.expect("a block before its first write") as usize
    }
}
