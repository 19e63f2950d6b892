//! What a product multiplies: rows of one buffer, or of two side by side.

use std::ops::Range;

use crate::backend::Rows;
use crate::cpu::buffer::CpuBuffer;

/// Rows of a buffer, or of two whose rows are read as one, the second after the first.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Input<'a> {
    pub(in crate::cpu) first: &'a CpuBuffer,
    pub(in crate::cpu) second: Option<&'a CpuBuffer>,
    pub(in crate::cpu) rows: Rows<'a>,
}

impl<'a> Input<'a> {
    /// Values of a row.
    pub(in crate::cpu) fn width(&self) -> usize {
        self.first.width() + self.second.map_or(0, CpuBuffer::width)
    }

    /// The part of a row that holds column `at`, and from which column on.
    fn part(&self, at: usize) -> (&'a CpuBuffer, usize) {
        match self.second {
            Some(second) if at >= self.first.width() => (second, self.first.width()),
            _ => (self.first, 0),
        }
    }

    /// Where the part of a row that holds column `at` ends.
    pub(in crate::cpu) fn part_end(&self, at: usize) -> usize {
        let (part, start) = self.part(at);
        start + part.width()
    }

    /// These columns of row `i`, which must be of one part.
    #[inline(always)]
    pub(in crate::cpu) fn columns(&self, i: usize, columns: Range<usize>) -> &'a [f32] {
        let (part, start) = self.part(columns.start);
        &part.row(self.rows.index(i))[columns.start - start..columns.end - start]
    }

    /// Row `i`: what the first buffer has of it, then what the second has.
    #[inline(always)]
    pub(in crate::cpu) fn parts(&self, i: usize) -> [&'a [f32]; 2] {
        let row = self.rows.index(i);
        [self.first.row(row), self.second.map_or(&[][..], |second| second.row(row))]
    }

    /// Calls `each` with runs of `len` columns of row `i`, in order; the last may be shorter. A run that belongs to both
    /// parts is copied to `bridge`.
    #[inline(always)]
    pub(in crate::cpu) fn runs<const LEN: usize>(&self, i: usize, mut each: impl FnMut(usize, &[f32])) {
        let [head, tail] = self.parts(i);
        let (border, width) = (head.len(), head.len() + tail.len());
        let mut bridge = [0.0; LEN];
        for (run, start) in (0..width).step_by(LEN).enumerate() {
            let end = (start + LEN).min(width);
            let values = if end <= border {
                &head[start..end]
            } else if start >= border {
                &tail[start - border..end - border]
            } else {
                bridge[..border - start].copy_from_slice(&head[start..]);
                bridge[border - start..end - start].copy_from_slice(&tail[..end - border]);
                &bridge[..end - start]
            };
            // The one place where it is called, so that it becomes part of the loop.
            each(run, values);
        }
    }
}
