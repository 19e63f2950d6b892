//! How attention is shared among threads.

use std::ops::Range;

/// Rows of a part at most.
const PART_ROWS: usize = 8;

/// How a launch is divided: groups of rows by groups of heads.
pub(super) struct Parts {
    rows: usize,
    heads: usize,
    pub(super) threads: usize,
    rows_each: usize,
    heads_each: usize,
}

impl Parts {
    /// At least four parts for each of several threads, where there are as many rows and heads.
    pub(super) fn new(rows: usize, heads: usize, threads: usize) -> Self {
        let wanted = if threads == 1 { 1 } else { 4 * threads };
        let rows_each = (rows / wanted).clamp(1, PART_ROWS);
        let heads_each = heads.div_ceil(wanted.div_ceil(rows.div_ceil(rows_each).max(1)));
        Self { rows, heads, threads, rows_each, heads_each }
    }

    fn groups(&self) -> usize {
        self.rows.div_ceil(self.rows_each)
    }

    pub(super) fn count(&self) -> usize {
        self.groups() * self.heads.div_ceil(self.heads_each)
    }

    /// Rows and heads of a part. Groups of rows are dealt from both ends, because a prompt's last rows have the most to read
    /// and threads begin with a stretch of parts each.
    pub(super) fn get(&self, part: usize) -> (Range<usize>, Range<usize>) {
        let of_heads = self.heads.div_ceil(self.heads_each);
        let (group, heads) = (part / of_heads, part % of_heads * self.heads_each);
        let group = if group.is_multiple_of(2) { group / 2 } else { self.groups() - 1 - group / 2 };
        let first = group * self.rows_each;
        (first..self.rows.min(first + self.rows_each), heads..self.heads.min(heads + self.heads_each))
    }
}
