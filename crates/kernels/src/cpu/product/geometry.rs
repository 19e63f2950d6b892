//! How packed weights, inputs and sums stand in memory.
//!
//! All formats cut a weight into panels of [`PANEL`] outputs, one after the other, so that a thread reads memory
//! front to back. Inside a panel stand [`Step`]s, one for each group of inputs: f32 has one input in a group, narrower
//! formats as many neighbours as fit into 32 bits (2 of bf16, 4 of int8). For the matrix extension, 16 groups make
//! a [`Block`] of four tiles instead. Rows of rounded inputs stand in [`Line`]s of as many groups, for tiles as [`Lines`].

use crate::cpu::pages::FromZeros;

/// Outputs of a panel.
pub(in crate::cpu) const PANEL: usize = 64;
/// Vectors of a panel.
pub(in crate::cpu) const VECTORS: usize = PANEL / 16;
/// Groups of inputs in a block.
pub(in crate::cpu) const GROUPS: usize = 16;
/// Rows of a tile.
pub(in crate::cpu) const BLOCK_ROWS: usize = 16;

/// One group's weights in a panel, `[PANEL]`: f32, or 32 bits of narrower numbers.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Step<T>(pub(in crate::cpu) [[T; 16]; VECTORS]);

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
}

/// One row's sums of a panel: f32, or the bits of i32 while int8 products are added up.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Sums(pub(in crate::cpu) [f32; PANEL]);

// SAFETY: arrays of numbers.
#[expect(unsafe_code, reason = "zeros are a value")]
unsafe impl<T: FromZeros> FromZeros for Step<T> {}

// SAFETY: as above.
#[expect(unsafe_code, reason = "zeros are a value")]
unsafe impl FromZeros for Block {}

impl Line {
    /// The groups of some lines, one after the other.
    #[expect(unsafe_code, reason = "the same memory seen as groups")]
    #[inline(always)]
    pub(in crate::cpu) fn groups(lines: &[Self]) -> &[u32] {
        const { assert!(size_of::<Self>() == GROUPS * size_of::<u32>()) };
        // SAFETY: a line is an array of groups, and the sizes agree (checked above).
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * GROUPS) }
    }
}

impl Block {
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
