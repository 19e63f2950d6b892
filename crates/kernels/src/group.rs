//! Ranks that share a model: each computes a part of every product, and the parts of a sum are added up.
//!
//! A part is added to those of lower ranks, always in that order, so a sum has the same bits however fast each rank is and
//! wherever it runs.

mod loss;
mod meeting;
mod threads;

pub use loss::Loss;
pub use threads::{Seat, seats};

/// One rank's way to the others of its group.
///
/// All ranks call the same operations with as many values in the same order. An operation panics when another rank is lost: what
/// it would have added is in nobody's reach.
pub trait Exchange: Send {
    /// Replaces `values` by their sum over all ranks, to which [`add_up`] adds them.
    fn all_reduce(&mut self, values: &mut [f32]);
}

/// Adds a rank's `values` to the sum over the ranks before it.
#[inline]
pub fn add_up(sum: &mut [f32], values: &[f32]) {
    assert_eq!(sum.len(), values.len(), "ranks differ in what they add up");
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += value;
    }
}
