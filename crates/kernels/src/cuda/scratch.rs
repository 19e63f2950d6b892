//! What operations need beside their operands, kept between calls.

use super::constants::Constants;
use super::device::{Argument, Device};
use super::growing::Growing;
use super::plan::Plan;
use super::queue::Queue;
use crate::backend::Rows;

/// What operations need beside their operands. Operations run in order, so each may use all of it.
#[derive(Debug)]
pub(super) struct Scratch<D: Device> {
    /// Indices of rows, or tokens.
    indices: Growing<D>,
    /// The same on the host: operations of a launch come with the same ones.
    last_indices: Vec<u32>,
    /// Rows on their way to where they belong.
    pub(super) values: Growing<D>,
    /// Inputs of a product as it reads them.
    pub(super) inputs: Growing<D>,
    /// Of the weight that has most.
    pub(super) most_inputs: usize,
    /// Largest outputs by row.
    pub(super) keys: Growing<D>,
    /// How latents moved.
    pub(super) changes: Growing<D>,
    /// By what rows stop.
    pub(super) stops: Growing<D>,
    /// The same on the host, kept for its memory.
    pub(super) stop_words: Vec<u64>,
    /// How outputs are drawn, changes of logits, and what was drawn.
    pub(super) draws: Growing<D>,
    pub(super) draw_words: Vec<u64>,
    pub(super) logit_changes: Growing<D>,
    pub(super) change_words: Vec<u32>,
    pub(super) drawn: Growing<D>,
    /// What this rank has of outputs, as wide as the widest rank's.
    pub(super) own_part: Growing<D>,
    /// What each rank has of a sum, or of outputs.
    pub(super) parts: Growing<D>,
    /// Where each rank's outputs begin.
    pub(super) starts: Growing<D>,
    pub(super) constants: Constants<D>,
    pub(super) plan: Plan<D>,
}

impl<D: Device> Default for Scratch<D> {
    fn default() -> Self {
        Self {
            indices: Growing::default(),
            last_indices: Vec::new(),
            values: Growing::default(),
            inputs: Growing::default(),
            most_inputs: 0,
            keys: Growing::default(),
            changes: Growing::default(),
            stops: Growing::default(),
            stop_words: Vec::new(),
            draws: Growing::default(),
            draw_words: Vec::new(),
            logit_changes: Growing::default(),
            change_words: Vec::new(),
            drawn: Growing::default(),
            own_part: Growing::default(),
            parts: Growing::default(),
            starts: Growing::default(),
            constants: Constants::default(),
            plan: Plan::default(),
        }
    }
}

impl<D: Device> Scratch<D> {
    /// A list of rows for a kernel, null for the first ones.
    ///
    /// # Panics
    /// If one of them is not among `capacity` rows.
    pub(super) fn rows(&mut self, device: &Queue<D>, rows: Rows<'_>, capacity: usize) -> Argument {
        match rows {
            Rows::First(count) => {
                assert!(count <= capacity, "{count} rows of {capacity}");
                Argument::NULL
            }
            Rows::At(indices) => self.indices(device, indices, capacity),
        }
    }

    /// Indices below `limit`, such as tokens.
    pub(super) fn indices(&mut self, device: &Queue<D>, indices: &[u32], limit: usize) -> Argument {
        let largest = indices.iter().max().map_or(0, |&index| index as usize);
        assert!(largest < limit, "index {largest} of {limit}");
        if self.last_indices != indices {
            self.indices.upload(device, indices);
            self.last_indices.clear();
            self.last_indices.extend_from_slice(indices);
        }
        Argument::start(self.indices.reserve(device, size_of_val(indices)))
    }
}
