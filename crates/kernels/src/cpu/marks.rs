//! That the parts of a job write different places.

use std::sync::{Mutex, PoisonError};

/// A bit for each place, all clear between two looks. Kept, so that looking allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Marks(Mutex<Vec<u64>>);

impl Marks {
    /// # Panics
    /// If one of `places` is there twice, or not below `count`.
    pub(super) fn check_distinct(&self, count: usize, places: impl Iterator<Item = usize> + Clone) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.len() < count.div_ceil(64) {
            marks.resize(count.div_ceil(64), 0);
        }
        let mut wrong = None;
        for place in places.clone() {
            let bit = 1 << (place % 64);
            match marks.get_mut(place / 64).filter(|mark| place < count && **mark & bit == 0) {
                Some(mark) => *mark |= bit,
                None => wrong = Some(place),
            }
        }
        for place in places {
            if let Some(mark) = marks.get_mut(place / 64) {
                *mark = 0;
            }
        }
        drop(marks);
        assert_eq!(wrong, None, "a row that is written twice, or is not there");
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::backend::{Backend, Rows};
    use crate::cpu::Cpu;

    #[test]
    fn what_is_there_twice_or_not_at_all_is_found_each_time_anew() {
        let marks = Marks::default();
        let is_fine = |count, places: &[usize]| {
            let look = || marks.check_distinct(count, places.iter().copied());
            catch_unwind(AssertUnwindSafe(look)).is_ok()
        };
        assert!(is_fine(200, &[0, 199, 63, 64]));
        assert!(!is_fine(200, &[63, 64, 63]));
        assert!(!is_fine(200, &[200]));
        assert!(!is_fine(3, &[1 << 40, 2]));
        assert!(is_fine(200, &[63, 64, 0, 199, 2]));
        assert!(is_fine(0, &[]));
    }

    #[test]
    #[should_panic(expected = "a row that is written twice")]
    fn two_threads_never_get_one_row() {
        let cpu = Cpu::new(2);
        let width = 1 << 14;
        let mut buffer = cpu.buffer(2, width);
        cpu.upload(&vec![0.0; 2 * width], &mut buffer, Rows::At(&[0, 0]));
    }
}
