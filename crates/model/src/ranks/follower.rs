//! A rank other than the first.

use std::sync::Arc;

use windlass_kernels::{Backend, LargestOutput};

use super::device::Device;
use super::order::{Order, Step};
use super::turns::Turns;
use crate::runner::Found;

/// What a rank has of the head's outputs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeadPart {
    /// Of the rows that want logits, `[rows, shard's vocabulary]`.
    pub logits: Vec<f32>,
    /// Of the rows that want the most likely token, the most likely of the rank's.
    pub most_likely: Vec<LargestOutput>,
    /// Where tokens are drawn on rank 0's device, those of the rows that want one.
    pub drawn: Vec<u32>,
}

impl HeadPart {
    /// Makes room for launches of so many rows, so that none allocates. Rows of logits are long, and seldom wanted: they grow.
    pub(crate) fn reserve(&mut self, rows: usize) {
        self.most_likely.reserve(rows);
        self.drawn.reserve(rows);
    }

    /// Replaces what `found` has by what is here.
    pub(crate) fn hand_over(&mut self, found: &mut Found) {
        std::mem::swap(&mut found.logits, &mut self.logits);
        std::mem::swap(&mut found.drawn, &mut self.drawn);
        found.most_likely.clear();
        found.most_likely.extend(self.most_likely.iter().map(|token| token.output));
    }
}

/// A rank's network, or its part of a stage.
pub struct Follower<B: Backend> {
    device: Device<B>,
    parts: Turns<HeadPart>,
}

impl<B: Backend> Follower<B> {
    /// A rank with this device, which has been told nothing yet.
    pub fn new(device: Device<B>) -> Self {
        Self { device, parts: Turns::default() }
    }

    /// Does as told, together with all other ranks; returns the rank's part of the head's outputs, if any were asked for.
    pub fn obey(&mut self, order: &Order) -> Option<Arc<HeadPart>> {
        let Self { device, parts } = self;
        // Of launches before nobody asks this rank.
        device.forget();
        device.obey(order);
        if let Step::Allocate(capacity) = order.step {
            parts.each(|part| part.reserve(capacity.rows));
        }
        let part = || Arc::clone(parts.fill(|part| std::mem::swap(part, &mut device.outcome().head)));
        (order.step == Step::Coda && order.wants_head()).then(part)
    }
}
