//! Rank 0's ways to the others: what it orders, what they add to sums, and what they make of orders.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;
use windlass_kernels::group::{Exchange, add_up};
use windlass_model::ranks::{HeadPart, Order, Others, Outcome, RankLink, Step};
use windlass_model::stages::StageRanks;
use windlass_proto::v1::{RankValues, ToRank, to_rank::Message};

use super::host::Group;
use super::wire;

/// How often who waits for an answer of another process, and for something to do meanwhile, looks.
const LOOK_INTERVAL: Duration = Duration::from_micros(20);

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
        let Self { group, spokes, summand } = self;
        for spoke in spokes {
            let message = spoke.summands.blocking_recv();
            spoke.read(&message.unwrap_or_else(|| panic!("{}", group.reason(spoke.rank))), summand);
            add_up(values, summand);
        }
        self.share(values);
    }
}

impl Hub {
    /// Adds up for ranks none of which is this process, on a thread that ends with the first of them.
    ///
    /// # Panics
    /// If the system refuses the thread.
    pub(super) fn relay(self, stage: usize) {
        let thread = thread::Builder::new().name(format!("windlass-sums-{stage}"));
        let (mut relay, mut sum) = (Relay(self), Vec::new());
        let all_sums = move || while relay.0.relay_sum(&mut sum).is_some() {};
        thread.spawn(all_sums).expect("the thread of a stage's sums");
    }

    /// One sum; none if a rank has left.
    fn relay_sum(&mut self, sum: &mut Vec<f32>) -> Option<()> {
        let Self { spokes, summand, .. } = self;
        for (index, spoke) in spokes.iter_mut().enumerate() {
            let message = spoke.summands.blocking_recv()?;
            if index == 0 {
                spoke.read(&message, sum);
            } else {
                spoke.read(&message, summand);
                add_up(sum, summand);
            }
        }
        self.share(sum);
        Some(())
    }

    /// Sends everybody the sum.
    fn share(&self, sum: &[f32]) {
        let sum = ToRank { message: Some(Message::Sum(wire::values_message(sum))) };
        for Spoke { rank, to, .. } in &self.spokes {
            to.blocking_send(sum.clone()).unwrap_or_else(|_| panic!("{}", self.group.reason(*rank)));
        }
    }
}

/// A hub on its thread. The group is lost with it, unless it is over already.
struct Relay(Hub);

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.group.lose(0, "it failed");
    }
}

impl Spoke {
    fn read(&self, summand: &RankValues, values: &mut Vec<f32>) {
        values.clear();
        values.extend(wire::values(summand).unwrap_or_else(|error| panic!("rank {}: {error}", self.rank)));
    }
}

/// The way to a rank in another process.
pub(super) struct RemoteRank {
    rank: usize,
    to: mpsc::Sender<ToRank>,
    parts: mpsc::Receiver<HeadPart>,
    outcomes: mpsc::Receiver<Outcome>,
    group: Arc<Group>,
}

impl RemoteRank {
    pub(super) fn new(
        rank: usize,
        to: mpsc::Sender<ToRank>,
        (parts, outcomes): (mpsc::Receiver<HeadPart>, mpsc::Receiver<Outcome>),
        group: Arc<Group>,
    ) -> Self {
        Self { rank, to, parts, outcomes, group }
    }

    fn order(&self, order: &Order) {
        let order = ToRank { message: Some(Message::Order(wire::order_message(order))) };
        self.to.blocking_send(order).unwrap_or_else(|_| self.fail());
    }

    /// The rank is not there any more.
    fn fail(&self) -> ! {
        self.group.lose(self.rank, "its connection has ended");
        panic!("{}", self.group.reason(self.rank))
    }
}

impl RankLink for RemoteRank {
    fn send(&mut self, order: &Arc<Order>) {
        self.order(order);
    }

    fn receive(&mut self) -> Arc<HeadPart> {
        Arc::new(self.parts.blocking_recv().unwrap_or_else(|| self.fail()))
    }
}

impl Drop for RemoteRank {
    fn drop(&mut self) {
        if thread::panicking() {
            self.group.lose(0, "it failed");
        } else {
            self.group.end();
        }
    }
}

/// The stage that this process has a part in. If it fails, ranks elsewhere are told before its devices leave them.
pub(super) struct FirstStage<S> {
    ranks: S,
    group: Arc<Group>,
}

impl<S: StageRanks> FirstStage<S> {
    pub(super) fn new(ranks: S, group: Arc<Group>) -> Self {
        Self { ranks, group }
    }
}

impl<S: StageRanks> StageRanks for FirstStage<S> {
    fn obey(&mut self, order: &Order) {
        self.ranks.obey(order);
    }

    fn draws(&self) -> bool {
        self.ranks.draws()
    }

    fn is_done(&mut self) -> bool {
        self.ranks.is_done()
    }

    fn is_computing(&mut self) -> bool {
        self.ranks.is_computing()
    }

    fn outcome(&mut self, order: &Order, outcome: &mut Outcome) {
        self.ranks.outcome(order, outcome);
    }
}

impl<S> Drop for FirstStage<S> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.group.lose(0, "it failed");
        }
    }
}

/// A stage all of whose ranks are in other processes.
pub(super) struct RemoteStage {
    first: RemoteRank,
    /// What it made of the first order that is not answered, where that has come.
    made: Option<Outcome>,
    /// Whether it hands rows on by itself, and can be told of a launch before the one before is done.
    is_linked: bool,
    others: Others,
    vocabulary: usize,
    draws: bool,
}

impl RemoteStage {
    /// Of ranks in order, at least one; whether such a rank can draw tokens, and hands rows on by itself.
    pub(super) fn new(
        mut ranks: Vec<RemoteRank>,
        vocabulary: usize,
        (draws, is_linked): (bool, bool),
    ) -> Self {
        let first = ranks.remove(0);
        Self { first, made: None, is_linked, others: others(ranks), vocabulary, draws }
    }
}

impl StageRanks for RemoteStage {
    fn obey(&mut self, order: &Order) {
        self.first.order(order);
        self.others.tell(|copy| copy.copy(order));
    }

    fn draws(&self) -> bool {
        self.draws
    }

    fn is_done(&mut self) -> bool {
        if !self.is_linked {
            return true;
        }
        if self.made.is_none() {
            self.made = self.first.outcomes.try_recv().ok();
        }
        let is_done = self.made.is_some() || self.first.outcomes.is_closed();
        if !is_done {
            // An answer takes longer than that anyway.
            thread::sleep(LOOK_INTERVAL);
        }
        is_done
    }

    fn outcome(&mut self, order: &Order, outcome: &mut Outcome) {
        let Self { first, made, others, vocabulary, .. } = self;
        let made = made.take().or_else(|| first.outcomes.blocking_recv());
        *outcome = made.unwrap_or_else(|| first.fail());
        if order.step == Step::Coda && order.wants_head() {
            others.join(&mut outcome.head, *vocabulary);
        }
    }
}

/// The ways to all ranks of a stage but the first.
pub(super) fn others(ranks: Vec<RemoteRank>) -> Others {
    Others::new(ranks.into_iter().map(|rank| -> Box<dyn RankLink> { Box::new(rank) }).collect())
}
