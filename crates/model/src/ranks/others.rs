//! Rank 0's way to the other ranks of its group.

use std::sync::Arc;

use windlass_kernels::LargestOutput;

use super::RankLink;
use super::follower::HeadPart;
use super::order::Order;
use super::turns::Turns;

/// All ranks of a group but the first; there may be none.
#[derive(Default)]
pub struct Others {
    /// By rank.
    links: Vec<Box<dyn RankLink>>,
    orders: Turns<Order>,
    /// What each found in the last coda.
    parts: Vec<Arc<HeadPart>>,
    /// All ranks' logits side by side, kept for its memory.
    logits: Vec<f32>,
}

impl Others {
    /// Of links by rank.
    pub fn new(links: Vec<Box<dyn RankLink>>) -> Self {
        Self { links, ..Self::default() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.links.len()
    }

    /// Makes room for launches of so many rows, so that telling of them allocates nothing.
    pub fn reserve(&mut self, rows: usize, hidden: usize) {
        if !self.links.is_empty() {
            self.orders.each(|order| order.reserve(rows, hidden));
        }
    }

    /// Has all of them do as `fill` makes of an order that holds something else.
    pub fn tell(&mut self, fill: impl FnOnce(&mut Order)) {
        if self.links.is_empty() {
            return;
        }
        let order = self.orders.fill(fill);
        for link in &mut self.links {
            link.send(order);
        }
    }

    /// Adds what they found of the head, of which something was wanted, to what rank 0 did: then `head` has all of it.
    pub fn join(&mut self, head: &mut HeadPart, vocabulary: usize) {
        let Self { links, parts, logits, .. } = self;
        if links.is_empty() {
            return;
        }
        parts.extend(links.iter_mut().map(|link| link.receive()));
        merge_logits(logits, &head.logits, parts, vocabulary);
        std::mem::swap(&mut head.logits, logits);
        for (row, token) in head.most_likely.iter_mut().enumerate() {
            *token = parts.iter().map(|part| part.most_likely[row]).fold(*token, LargestOutput::or_later);
        }
        parts.clear();
    }
}

/// Puts the ranks' parts of each row side by side.
fn merge_logits(logits: &mut Vec<f32>, first: &[f32], parts: &[Arc<HeadPart>], vocabulary: usize) {
    let values = first.len() + parts.iter().map(|part| part.logits.len()).sum::<usize>();
    let rows = values / vocabulary;
    logits.clear();
    for row in 0..rows {
        for part in std::iter::once(first).chain(parts.iter().map(|part| part.logits.as_slice())) {
            let width = part.len() / rows;
            logits.extend_from_slice(&part[row * width..][..width]);
        }
    }
}
