//! How packed weights, inputs and sums stand in memory.
//!
//! All formats cut a weight into panels of [`PANEL`] outputs, one after the other, so that a thread reads memory
//! front to back. Inside a panel, f32 stands `[inputs]` [`Step`]s. Narrower formats put neighbouring inputs that fit
//! into 32 bits into a group (2 of bf16, 4 of int8) and 16 groups into a [`Block`], whose four parts are tiles of
//! the matrix extension; [`Lines`] hold the same groups of some rows.

/// Outputs of a panel.
pub(in crate::cpu) const PANEL: usize = 64;
/// Vectors of a panel.
pub(in crate::cpu) const VECTORS: usize = PANEL / 16;
/// Groups of inputs in a block.
pub(in crate::cpu) const GROUPS: usize = 16;
/// Rows of a tile.
pub(in crate::cpu) const BLOCK_ROWS: usize = 16;

/// One input's weights in a panel, f32 `[PANEL]`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Step(pub(in crate::cpu) [[f32; 16]; VECTORS]);

/// [`GROUPS`] groups of inputs' weights in a panel, `[VECTORS][GROUPS][16 outputs]`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Block(pub(in crate::cpu) [[[u32; 16]; GROUPS]; VECTORS]);

/// One row's inputs of a block.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Line(pub(in crate::cpu) [u32; GROUPS]);

/// Inputs of up to [`BLOCK_ROWS`] rows, `[blocks][rows]`, with lines of whatever bits behind the last that fill its
/// block up: tiles are loaded as if there were [`BLOCK_ROWS`] rows, and what that adds is never looked at.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Lines<'a> {
    lines: &'a [Line],
    rows: usize,
    blocks: usize,
}

impl<'a> Lines<'a> {
    /// `blocks` blocks of `rows` rows, the first at the beginning of `lines`.
    pub(in crate::cpu) fn new(lines: &'a [Line], rows: usize, blocks: usize) -> Self {
        assert!((1..=BLOCK_ROWS).contains(&rows), "rows of a block");
        if blocks > 0 {
            assert!(lines.len() >= (blocks - 1) * rows + BLOCK_ROWS, "the last block is filled up");
        }
        Self { lines, rows, blocks }
    }

    pub(in crate::cpu) fn blocks(&self) -> usize {
        self.blocks
    }

    /// Bytes from a block to the next.
    pub(in crate::cpu) fn stride(&self) -> usize {
        self.rows * size_of::<Line>()
    }

    pub(in crate::cpu) fn as_ptr(&self) -> *const Line {
        self.lines.as_ptr()
    }

    /// The rows of block `i`.
    #[inline(always)]
    pub(in crate::cpu) fn block(&self, i: usize) -> &'a [Line] {
        &self.lines[i * self.rows..][..self.rows]
    }
}

/// One row's sums of a panel: f32, or the bits of i32 while int8 products are added up.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Sums(pub(in crate::cpu) [f32; PANEL]);

impl Step {
    pub(in crate::cpu) const ZERO: Self = Self([[0.0; 16]; VECTORS]);
}

impl Block {
    pub(in crate::cpu) const ZERO: Self = Self([[[0; 16]; GROUPS]; VECTORS]);

    /// The memory of some blocks, line by line.
    #[expect(unsafe_code, reason = "the same memory seen as lines")]
    pub(in crate::cpu) fn lines(blocks: &[Self]) -> &[Line] {
        const { assert!(size_of::<Self>() == VECTORS * GROUPS * size_of::<Line>()) };
        // SAFETY: both are arrays of u32 with one alignment, and the sizes agree (checked above).
        unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast(), blocks.len() * VECTORS * GROUPS) }
    }
}

impl Sums {
    pub(in crate::cpu) const ZERO: Self = Self([0.0; PANEL]);

    /// The four vectors.
    #[inline(always)]
    pub(in crate::cpu) fn vectors(&mut self) -> &mut [[f32; 16]; VECTORS] {
        self.0.as_chunks_mut().0.try_into().expect("four vectors")
    }
}
