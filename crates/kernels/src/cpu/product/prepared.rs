//! Inputs of a product as narrow numbers.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::dots::{Narrow, biased};
use super::geometry::{BLOCK_ROWS, GROUPS, Line, Lines};
use super::input::Input;
#[cfg(target_arch = "x86_64")]
use super::narrow::Vectors;
use super::narrow::{BF16_GROUP, INT8_GROUP, Plain, Round, int8_scale, inverse};
use super::strips::Groups;
use crate::cpu::disjoint::Disjoint;
use crate::cpu::isa::Isa;
use crate::cpu::team::Team;

/// Values up to which every thread rounds all of them for itself: that is faster than fetching what another core has
/// just written.
pub(super) const OWN_VALUES: usize = 1 << 18;

/// The number of a product, so that a thread knows whether it has rounded that one's inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProductId(u64);

impl ProductId {
    /// One that was never given out.
    pub(super) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

thread_local! {
    /// What this thread rounded last.
    static OWN: RefCell<(ProductId, Prepared)> =
        const { RefCell::new((ProductId(0), Prepared { lines: Vec::new(), rows: 0, depth: 0, scales: Vec::new() })) };
}

/// Calls `with` with the inputs of product `id`, rounded by this thread alone, once.
pub(super) fn with_own(
    id: ProductId,
    isa: Isa,
    narrow: Narrow,
    input: &Input<'_>,
    with: impl FnOnce(&Prepared),
) {
    OWN.with_borrow_mut(|(last, prepared)| {
        if *last != id {
            prepared.fill(isa, narrow, input, &|rows, round| (0..rows).for_each(round));
            *last = id;
        }
        with(prepared);
    });
}

/// The rows of one product, rounded. Memory is kept for the next product.
#[derive(Default)]
pub(in crate::cpu) struct Prepared {
    /// For tiles `[rows / BLOCK_ROWS]` [`Lines`], of which the last may have fewer rows; else `[rows][depth]`.
    lines: Vec<Line>,
    rows: usize,
    /// Blocks of a row.
    depth: usize,
    /// By row, for int8.
    scales: Vec<f32>,
}

/// Calls what it is given once for each of so many rows.
type Each<'a> = dyn Fn(usize, &(dyn Fn(usize) + Sync)) + 'a;

impl Prepared {
    /// Rounds `input` on all threads of `team`.
    pub(super) fn fill_shared(&mut self, isa: Isa, team: &Team, narrow: Narrow, input: &Input<'_>) {
        self.fill(isa, narrow, input, &|rows, round| team.run(rows, round));
    }

    /// Rounds `input`; `each` calls what it is given once for each of so many rows.
    fn fill(&mut self, isa: Isa, narrow: Narrow, input: &Input<'_>, each: &Each<'_>) {
        let (rows, width) = (input.rows.len(), input.width());
        self.rows = rows;
        self.depth = width.div_ceil(narrow.block_inputs());
        let lines = rows * self.depth + BLOCK_ROWS;
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; GROUPS]));
        }
        if self.scales.len() < rows {
            self.scales.resize(rows, 0.0);
        }
        let depth = self.depth;
        let lines = Disjoint::new(&mut self.lines);
        let scales = Disjoint::new(&mut self.scales);
        // Rows whose lines alternate.
        let block_rows = if isa.has_tiles() { BLOCK_ROWS } else { 1 };
        let round = |row: usize| {
            let first = row / block_rows * block_rows;
            let stride = block_rows.min(rows - first);
            let to = RowLines { lines, start: first * depth + row % block_rows, stride };
            round_row(isa, narrow, input, row, to, &mut scales.range(row, 1)[0]);
        };
        each(rows, &round);
    }

    /// For tiles: some blocks of the rows from `first` on, which is a multiple of [`BLOCK_ROWS`].
    pub(super) fn lines(&self, first: usize, blocks: Range<usize>) -> Lines<'_> {
        let rows = BLOCK_ROWS.min(self.rows - first);
        Lines::new(&self.lines[first * self.depth + blocks.start * rows..], rows, blocks.len())
    }

    /// By row, for int8.
    pub(super) fn scales(&self) -> &[f32] {
        &self.scales
    }
}

/// Where there are no tiles.
impl Groups for Prepared {
    type Group = u32;

    #[inline(always)]
    fn piece_end(&self, _: usize) -> usize {
        self.depth * GROUPS
    }

    #[inline(always)]
    fn groups(&self, i: usize, groups: Range<usize>) -> &[u32] {
        &Line::groups(&self.lines[i * self.depth..][..self.depth])[groups]
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

impl Narrow {
    /// Inputs of a group.
    pub(super) fn group_inputs(self) -> usize {
        match self {
            Self::Bf16 => BF16_GROUP,
            Self::Int8 => INT8_GROUP,
        }
    }

    /// Inputs of a block.
    pub(super) fn block_inputs(self) -> usize {
        GROUPS * self.group_inputs()
    }
}

/// Where one row's groups go.
#[derive(Clone, Copy)]
pub(super) struct RowLines<'a> {
    lines: Disjoint<'a, Line>,
    start: usize,
    stride: usize,
}

impl RowLines<'_> {
    #[inline(always)]
    fn line(&self, block: usize) -> &mut [u32; GROUPS] {
        &mut self.lines.range(self.start + block * self.stride, 1)[0].0
    }
}

/// Rounds one row; `scale` is written for int8.
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "calls a function of detected features"))]
fn round_row(isa: Isa, narrow: Narrow, input: &Input<'_>, row: usize, to: RowLines<'_>, scale: &mut f32) {
    #[cfg(target_arch = "x86_64")]
    if isa <= Isa::Avx512Dot {
        #[target_feature(enable = "avx512f,avx512bf16,fma")]
        fn vectors(
            narrow: Narrow,
            input: &Input<'_>,
            row: usize,
            to: RowLines<'_>,
            scale: &mut f32,
            bias: u32,
        ) {
            // SAFETY: this function has the features.
            let round = unsafe { Vectors::assume() };
            match narrow {
                Narrow::Bf16 => round_bf16(round, input, row, to),
                Narrow::Int8 => round_int8(round, input, row, to, scale, bias),
            }
        }
        // SAFETY: `Cpu` only holds an `Isa` that was detected on this machine.
        return unsafe { vectors(narrow, input, row, to, scale, bias(isa)) };
    }
    match narrow {
        Narrow::Bf16 => round_bf16(Plain, input, row, to),
        Narrow::Int8 => round_int8(Plain, input, row, to, scale, bias(isa)),
    }
}

/// What turns the highest bit of each byte, and so adds 128, where the instruction set wants that.
fn bias(isa: Isa) -> u32 {
    if biased(isa) { 0x8080_8080 } else { 0 }
}

#[inline(always)]
fn round_bf16<R: Round>(round: R, input: &Input<'_>, row: usize, to: RowLines<'_>) {
    input.runs::<{ GROUPS * BF16_GROUP }>(row, |block, values| round.bf16(values, to.line(block)));
}

#[inline(always)]
fn round_int8<R: Round>(
    round: R,
    input: &Input<'_>,
    row: usize,
    to: RowLines<'_>,
    scale: &mut f32,
    bias: u32,
) {
    let [first, second] = input.parts(row);
    *scale = int8_scale(round.largest_magnitude(first).max(round.largest_magnitude(second)));
    let inverse = inverse(*scale);
    input.runs::<{ GROUPS * INT8_GROUP }>(row, |block, values| {
        let line = to.line(block);
        round.int8(values, inverse, line);
        for group in line {
            *group ^= bias;
        }
    });
}
