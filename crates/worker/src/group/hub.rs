//! Rank 0's ways to the others: what it orders, and what they add to sums.

use std::sync::Arc;

use tokio::sync::mpsc;
use windlass_kernels::group::{Exchange, add_up};
use windlass_model::ranks::{HeadPart, Order, RankLink};
use windlass_proto::v1::{RankValues, ToRank, to_rank::Message};

use super::host::Group;
use super::wire;

/// Adds up what all ranks send, in their order, and sends them the sum.
pub(super) struct Hub {
    group: Arc<Group>,
    /// By rank, from 1 on.
    spokes: Vec<Spoke>,
    /// A rank's values; kept for its memory.
    summand: Vec<f32>,
}

struct Spoke {
    rank: usize,
    to: mpsc::Sender<ToRank>,
    summands: mpsc::Receiver<RankValues>,
}

impl Hub {
    pub(super) fn new(group: Arc<Group>) -> Self {
        Self { group, spokes: Vec::new(), summand: Vec::new() }
    }

    pub(super) fn add(
        &mut self,
        rank: usize,
        to: mpsc::Sender<ToRank>,
        summands: mpsc::Receiver<RankValues>,
    ) {
        self.spokes.push(Spoke { rank, to, summands });
    }
}

impl Exchange for Hub {
    fn all_reduce(&mut self, values: &mut [f32]) {
        for Spoke { rank, summands, .. } in &mut self.spokes {
            let summand = summands.blocking_recv().unwrap_or_else(|| panic!("{}", self.group.reason(*rank)));
            self.summand.clear();
            self.summand
                .extend(wire::values(&summand).unwrap_or_else(|error| panic!("rank {rank}: {error}")));
            add_up(values, &self.summand);
        }
        let sum = ToRank { message: Some(Message::Sum(wire::values_message(values))) };
        for Spoke { rank, to, .. } in &self.spokes {
            to.blocking_send(sum.clone()).unwrap_or_else(|_| panic!("{}", self.group.reason(*rank)));
        }
    }
}

/// The way to a rank in another process.
pub(super) struct RemoteRank {
    rank: usize,
    to: mpsc::Sender<ToRank>,
    parts: mpsc::Receiver<HeadPart>,
    group: Arc<Group>,
}

impl RemoteRank {
    pub(super) fn new(
        rank: usize,
        to: mpsc::Sender<ToRank>,
        parts: mpsc::Receiver<HeadPart>,
        group: Arc<Group>,
    ) -> Self {
        Self { rank, to, parts, group }
    }
}

impl RankLink for RemoteRank {
    fn send(&mut self, order: &Arc<Order>) {
        let order = ToRank { message: Some(Message::Order(wire::order_message(order))) };
        self.to.blocking_send(order).unwrap_or_else(|_| panic!("{}", self.group.reason(self.rank)));
    }

    fn receive(&mut self) -> Arc<HeadPart> {
        Arc::new(self.parts.blocking_recv().unwrap_or_else(|| panic!("{}", self.group.reason(self.rank))))
    }
}

impl Drop for RemoteRank {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.group.lose(0, "it failed");
        } else {
            self.group.end();
        }
    }
}
