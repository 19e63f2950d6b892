//! Weights as a checkpoint stores them, perhaps in a mapped file: a device reads them row by row, and nobody copies the whole.

use std::ops::Range;

use half::f16;

use crate::bytes::bytes;

/// The type of stored values, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl Stored {
    /// Of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// A matrix `[rows, columns]`, row-major, or some rows and columns of a stored one.
#[derive(Debug, Clone)]
pub struct Weight<'a> {
    /// All that is stored.
    bytes: &'a [u8],
    values: Stored,
    /// Values of a stored row.
    width: usize,
    /// Which of the stored rows these are, one run after the other.
    runs: Vec<Range<usize>>,
    /// Which values of each.
    columns: Range<usize>,
}

impl<'a> Weight<'a> {
    /// Stored rows of `width` values each.
    ///
    /// # Panics
    /// If the bytes are not whole rows.
    pub fn new(bytes: &'a [u8], values: Stored, width: usize) -> Self {
        let row = width * values.bytes();
        assert!(bytes.len().is_multiple_of(row), "{} bytes are no rows of {row}", bytes.len());
        let rows = bytes.len().checked_div(row).unwrap_or(0);
        let runs = std::iter::once(0..rows).collect();
        Self { bytes, values, width, runs, columns: 0..width }
    }

    /// Rows of `width` values each, in memory.
    ///
    /// # Panics
    /// If the values are not whole rows.
    pub fn of(values: &'a [f32], width: usize) -> Self {
        Self::new(bytes(values), Stored::F32, width)
    }

    /// Some rows of each of `count` matrices of one shape that stand one above the other.
    ///
    /// # Panics
    /// If they have no such rows.
    #[must_use]
    pub fn rows_of_each(self, count: usize, rows: &Range<usize>) -> Self {
        assert!(self.rows().is_multiple_of(count), "{} rows are not {count} matrices", self.rows());
        let height = self.rows() / count;
        assert!(rows.end <= height, "rows {rows:?} of {height}");
        let runs = (0..count).flat_map(|matrix| self.stored_runs(matrix * height, rows)).collect();
        Self { runs, ..self }
    }

    /// Some columns.
    ///
    /// # Panics
    /// If there are no such columns.
    #[must_use]
    pub fn columns(self, columns: &Range<usize>) -> Self {
        assert!(columns.end <= self.columns.len(), "columns {columns:?} of {}", self.columns.len());
        let start = self.columns.start;
        Self { columns: start + columns.start..start + columns.end, ..self }
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.runs.iter().map(Range::len).sum()
    }

    /// How many columns it has.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// The type of its values.
    pub fn values(&self) -> Stored {
        self.values
    }

    /// A row as it is stored.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        let value = self.values.bytes();
        let start = self.stored_row(row) * self.width;
        &self.bytes[(start + self.columns.start) * value..(start + self.columns.end) * value]
    }

    /// Copies a row to `to`, widened.
    ///
    /// # Panics
    /// If there is no such row, or `to` is not as long.
    pub fn read(&self, row: usize, to: &mut [f32]) {
        assert_eq!(to.len(), self.width(), "a row's values");
        let row = self.row(row);
        match self.values {
            Stored::F32 => widen(row, to, f32::from_le_bytes),
            Stored::F16 => widen(row, to, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Stored::Bf16 => {
                widen(row, to, |bytes| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16));
            }
        }
    }

    /// All rows, widened.
    pub fn to_vec(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows() * self.width()];
        for (row, to) in values.chunks_exact_mut(self.width().max(1)).enumerate() {
            self.read(row, to);
        }
        values
    }

    /// The first value that is not finite, and where among all of them, row-major.
    pub fn not_finite(&self) -> Option<(usize, f32)> {
        let width = self.width();
        let mut values = vec![0.0; width];
        (0..self.rows()).find_map(|row| {
            self.read(row, &mut values);
            let column = values.iter().position(|value| !value.is_finite())?;
            Some((row * width + column, values[column]))
        })
    }

    /// The rows of `rows`, at least one, as they are stored, if they lie there in one piece.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn in_one_piece(&self, rows: &Range<usize>) -> Option<&'a [u8]> {
        let start = self.stored_row(rows.start);
        let run = self.runs.iter().find(|run| run.contains(&start))?;
        let is_whole = self.columns == (0..self.width) && start + rows.len() <= run.end;
        let row = self.width * self.values.bytes();
        is_whole.then(|| &self.bytes[start * row..(start + rows.len()) * row])
    }

    fn stored_row(&self, row: usize) -> usize {
        let mut before = 0;
        for run in &self.runs {
            if row < before + run.len() {
                return run.start + row - before;
            }
            before += run.len();
        }
        panic!("row {row} of {before}");
    }

    /// The stored runs of `rows`, counted from row `first`.
    fn stored_runs(&self, first: usize, rows: &Range<usize>) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for row in rows.clone() {
            let stored = self.stored_row(first + row);
            match runs.last_mut() {
                Some(run) if run.end == stored => run.end += 1,
                _ => runs.push(stored..stored + 1),
            }
        }
        runs
    }
}

fn widen<const N: usize>(stored: &[u8], to: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (to, bytes) in to.iter_mut().zip(stored.as_chunks().0) {
        *to = value(*bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: u8) -> Vec<f32> {
        (0..count).map(f32::from).collect()
    }

    #[test]
    fn rows_and_columns_are_cut_out_of_every_matrix() {
        let numbers = numbers(12);
        let rows = Weight::of(&numbers, 2).rows_of_each(2, &(1..3));
        assert_eq!(rows.to_vec(), [2.0, 3.0, 4.0, 5.0, 8.0, 9.0, 10.0, 11.0]);
        assert_eq!((rows.rows(), rows.width()), (4, 2));
        let columns = Weight::of(&numbers, 4).columns(&(1..3));
        assert_eq!(columns.to_vec(), [1.0, 2.0, 5.0, 6.0, 9.0, 10.0]);
        let both = columns.columns(&(1..2)).rows_of_each(1, &(1..3)).rows_of_each(2, &(0..1));
        assert_eq!(both.to_vec(), [6.0, 10.0]);
    }

    #[test]
    fn whole_rows_of_one_run_lie_in_one_piece() {
        let numbers = numbers(12);
        let weight = Weight::of(&numbers, 2);
        assert_eq!(weight.in_one_piece(&(1..3)), Some(bytes(&numbers[2..6])));
        assert_eq!(weight.clone().columns(&(0..1)).in_one_piece(&(1..3)), None);
        let rows = weight.rows_of_each(2, &(1..3));
        assert_eq!(rows.in_one_piece(&(2..4)), Some(bytes(&numbers[8..12])));
        assert_eq!(rows.in_one_piece(&(1..3)), None, "from two runs");
    }

    #[test]
    fn every_type_is_widened_without_loss() {
        let values = [1.5, -0.25, 0.0, -0.0, 65504.0, 6.0e-8_f32];
        let halves: Vec<u8> = values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
        let expected: Vec<f32> = values.iter().map(|&value| f16::from_f32(value).to_f32()).collect();
        assert_eq!(Weight::new(&halves, Stored::F16, 3).to_vec(), expected);
        let upper: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()[2..].to_vec()).collect();
        let expected = values.map(|value| f32::from_bits(value.to_bits() & 0xffff_0000));
        assert_eq!(Weight::new(&upper, Stored::Bf16, 2).to_vec(), expected);
        assert_eq!(Weight::of(&values, 6).to_vec(), values);
    }

    #[test]
    #[should_panic(expected = "7 bytes are no rows of 6")]
    fn bytes_that_are_no_whole_rows_are_refused() {
        Weight::new(&[0; 7], Stored::Bf16, 3);
    }
}
