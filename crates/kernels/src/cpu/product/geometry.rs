//! How packed weights, inputs and sums stand in memory.
//!
//! All formats cut a weight into panels of [`PANEL`] outputs, one after the other, so that a thread reads memory
//! front to back. Inside a panel, f32 stands `[inputs]` [`Step`]s. Narrower formats put neighbouring inputs that fit
//! into 32 bits into a group (2 of bf16, 4 of int8) and 16 groups into a [`Block`], whose four parts are tiles of
//! the matrix extension; [`InputBlock`]s hold the same groups of 16 rows.

/// Outputs of a panel.
pub(in crate::cpu) const PANEL: usize = 64;
/// Vectors of a panel.
pub(in crate::cpu) const VECTORS: usize = PANEL / 16;
/// Groups of inputs in a block.
pub(in crate::cpu) const GROUPS: usize = 16;
/// Rows of an [`InputBlock`].
pub(in crate::cpu) const BLOCK_ROWS: usize = 16;

/// One input's weights in a panel, f32 `[PANEL]`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Step(pub(in crate::cpu) [[f32; 16]; VECTORS]);

/// [`GROUPS`] groups of inputs' weights in a panel, `[VECTORS][GROUPS][16 outputs]`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Block(pub(in crate::cpu) [[[u32; 16]; GROUPS]; VECTORS]);

/// [`GROUPS`] groups of 16 rows of inputs, `[BLOCK_ROWS][GROUPS]`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct InputBlock(pub(in crate::cpu) [[u32; GROUPS]; BLOCK_ROWS]);

/// One row's sums of a panel: f32, or the bits of i32 while int8 products are added up.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::cpu) struct Sums(pub(in crate::cpu) [f32; PANEL]);

impl Step {
    pub(in crate::cpu) const ZERO: Self = Self([[0.0; 16]; VECTORS]);
}

impl Block {
    pub(in crate::cpu) const ZERO: Self = Self([[[0; 16]; GROUPS]; VECTORS]);
}

impl InputBlock {
    pub(in crate::cpu) const ZERO: Self = Self([[0; GROUPS]; BLOCK_ROWS]);

    /// The rows of all blocks, `[blocks · BLOCK_ROWS]`.
    #[expect(unsafe_code, reason = "the same memory seen row by row")]
    pub(in crate::cpu) fn lines(blocks: &mut [Self]) -> &mut [[u32; GROUPS]] {
        const { assert!(size_of::<Self>() == BLOCK_ROWS * size_of::<[u32; GROUPS]>()) };
        // SAFETY: a block is its rows and nothing else (checked above), any bits are valid, and alignment only drops.
        unsafe { std::slice::from_raw_parts_mut(blocks.as_mut_ptr().cast(), blocks.len() * BLOCK_ROWS) }
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
