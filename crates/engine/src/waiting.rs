//! Sequences without a lane.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::request::RequestId;
use crate::sequence::Sequence;

/// When a sequence has its turn: the higher priority first, then the one that came first.
pub(crate) type Turn = (Reverse<i32>, u64);

/// Sequences without a lane: new ones, and those whose lane was taken away, which go before newer ones.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    by_turn: BTreeMap<Turn, Sequence>,
}

impl Waiting {
    pub(crate) fn len(&self) -> usize {
        self.by_turn.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_turn.is_empty()
    }

    pub(crate) fn push(&mut self, sequence: Sequence) {
        self.by_turn.insert(sequence.turn(), sequence);
    }

    /// The sequence whose turn it is.
    pub(crate) fn first(&self) -> Option<&Sequence> {
        self.by_turn.first_key_value().map(|(_, sequence)| sequence)
    }

    pub(crate) fn pop_first(&mut self) -> Option<Sequence> {
        self.by_turn.pop_first().map(|(_, sequence)| sequence)
    }

    pub(crate) fn remove(&mut self, id: RequestId) {
        self.by_turn.retain(|_, sequence| sequence.id != id);
    }

    /// Takes out a sequence whose deadline has passed, if there is one.
    pub(crate) fn pop_late(&mut self, now: Duration) -> Option<Sequence> {
        let late = self.iter().find(|sequence| sequence.is_late(now))?.turn();
        self.by_turn.remove(&late)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Sequence> {
        self.by_turn.values()
    }
}
