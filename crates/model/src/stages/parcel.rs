//! What goes round the ring: a launch, and what has become of it so far.

use crate::ranks::{Order, Outcome, Step};
use crate::runner::{Busy, Part};

/// A launch that is under way; used again and again, for its memory.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    /// The prelude of rows that enter with it; without rows nothing.
    pub(super) entering: Order,
    /// The launch. Of a core, its values are what the stage before left, where devices do not hand that to each other.
    pub(super) order: Order,
    /// What the last stage that had it made of it.
    pub(super) outcome: Outcome,
    pub(super) busy: Busy,
}

impl Parcel {
    /// With room for this many rows, so that a launch allocates nothing; whether they have their activations with them.
    pub(super) fn new(rows: usize, hidden: usize, has_activations: bool) -> Self {
        let mut parcel = Self::default();
        parcel.entering.reserve(rows, hidden);
        let hidden = if has_activations { hidden } else { 0 };
        parcel.order.reserve(rows, hidden);
        parcel.outcome.reserve(rows, hidden);
        parcel
    }

    /// Forgets what the last launch left, but not the memory it took.
    pub(super) fn clear(&mut self) {
        self.entering.begin(Step::Prelude);
        self.busy = Busy::default();
    }

    pub(super) fn part(&self) -> Part {
        if self.order.step == Step::Coda { Part::Coda } else { Part::Core }
    }
}
