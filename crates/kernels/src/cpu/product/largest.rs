//! The largest output of each row, found panel by panel without keeping the product.

use std::sync::atomic::{AtomicU64, Ordering};

use super::epilogue::Epilogue;
use super::geometry::{PANEL, Sums};
use super::packed::PackedMatrix;
use crate::backend::LargestOutput;
use crate::cpu::isa::Isa;
use crate::draw::key;

/// By row: the largest value so far as [`key`] makes it in the upper half, and in the lower what is left of `u32::MAX`
/// when its output is taken off, so that of equal values the lowest output is the larger number. Threads may come in
/// any order, since a maximum has none.
#[derive(Debug, Default)]
pub(in crate::cpu) struct Largest {
    rows: Vec<AtomicU64>,
}

impl Largest {
    /// Forgets everything; there are `rows` rows.
    pub(in crate::cpu) fn reset(&mut self, rows: usize) {
        /// As many as most launches have: so few bytes that they need not grow with them.
        const USUAL: usize = 256;
        self.rows.resize_with(rows.max(self.rows.len()).max(USUAL), AtomicU64::default);
        for row in &mut self.rows[..rows] {
            *row.get_mut() = 0;
        }
    }

    /// Looks at the outputs of `weight`.
    pub(in crate::cpu) fn of(&self, weight: &PackedMatrix) -> LargestOf<'_> {
        LargestOf { rows: &self.rows, outputs: weight.outputs() }
    }

    /// A row's largest output.
    pub(in crate::cpu) fn of_row(&self, row: usize) -> LargestOutput {
        let found = self.rows[row].load(Ordering::Relaxed);
        LargestOutput { output: u32::MAX - found as u32, value: value((found >> 32) as u32) }
    }
}

/// The value that [`key`] made a number of; of a NaN any.
fn value(key: u32) -> f32 {
    f32::from_bits(match key {
        0 => f32::NAN.to_bits(),
        key if key >> 31 == 1 => key & !(1 << 31),
        key => !key,
    })
}

/// The epilogue.
pub(in crate::cpu) struct LargestOf<'a> {
    rows: &'a [AtomicU64],
    outputs: usize,
}

impl Epilogue for LargestOf<'_> {
    fn finish(&self, _: Isa, panel: usize, first_row: usize, sums: &[Sums]) {
        let first = panel * PANEL;
        let outputs = PANEL.min(self.outputs - first);
        for (row, sums) in self.rows[first_row..].iter().zip(sums) {
            let mut largest = 0;
            for (i, &sum) in sums.0[..outputs].iter().enumerate() {
                let output = (first + i) as u32;
                largest = largest.max(u64::from(key(sum)) << 32 | u64::from(u32::MAX - output));
            }
            row.fetch_max(largest, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_as_values() {
        let values = [f32::NAN, f32::NEG_INFINITY, -1.0, -1e-40, 0.0, 1e-40, 2.0, f32::INFINITY];
        assert!(values.map(key).is_sorted_by(|a, b| a < b));
        assert_eq!(key(-0.0), key(0.0));
        assert_eq!(values[1..].iter().map(|&x| value(key(x))).collect::<Vec<_>>(), values[1..]);
        assert!(value(key(f32::NAN)).is_nan());
    }
}
