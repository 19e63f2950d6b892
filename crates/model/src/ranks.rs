//! Tensor parallelism: one model on several ranks, each with a [`Shard`](crate::Shard) of it.
//!
//! All ranks run every launch: [`Ranks`] runs it as rank 0 and sends the others an [`Order`] that says all they need. They meet
//! twice in each layer, where [`Backend::all_reduce`] adds up what each has of a projection; so after every layer each has all
//! rows. Of the head's outputs each has a part, which it hands to rank 0, from device to device where tokens are drawn on rank 0's,
//! else by the host. Where another rank lives, a thread or a process of
//! another machine, only its [`RankLink`] knows. A stage of a ring has ranks in the same way.

mod device;
mod follower;
mod order;
mod others;
mod path;
mod tables;
mod thread;
mod turns;

use std::collections::VecDeque;
use std::sync::Arc;

use windlass_kernels::{Arithmetic, Backend, KvTable, LatentChange, Stop};

use crate::config::ModelConfig;
use crate::network::{Capacity, Launch, Network};
use crate::runner::{Busy, Found, Local, Part, Runner, Wanted};
pub use device::{Device, Outcome, UNREAD};
pub use follower::{Follower, HeadPart};
pub use order::{LoweredSlot, OpenedTable, Order, OrderRow, Step};
pub use others::Others;
pub(crate) use path::{Source, Target, path};
use tables::Tables;
use thread::RankThread;
pub use turns::Turns;

/// The way from rank 0 to another rank. Both operations panic if that is lost.
pub trait RankLink: Send {
    /// Has the rank obey `order` after those before.
    fn send(&mut self, order: &Arc<Order>);
    /// The rank's part of what was wanted of the head, for each coda that wanted something.
    fn receive(&mut self) -> Arc<HeadPart>;
}

/// A network over all ranks of a group. It runs ahead where its devices do.
pub struct Ranks<B: Backend> {
    /// Before the others, so that its end frees those that wait for it before it waits for theirs.
    first: Local<B>,
    others: Others,
    /// What lanes have begun with since the last order.
    opened: Vec<OpenedTable>,
    /// Highest slots that have become lower since the last order.
    lowered: Vec<LoweredSlot>,
    /// The lanes' tables as the others have them, where devices record what they are asked for: so rank 0 asks its own for the same as
    /// they do of theirs.
    tables: Option<Tables>,
    /// Whether the others have something to add to each coda that is under way.
    wants_head: VecDeque<bool>,
    /// Of the coda that was collected last.
    head: HeadPart,
}

impl<B: Backend> Ranks<B> {
    /// Rank 0's network, and the way to the others.
    pub fn new(first: Network<B>, others: Others) -> Self {
        let records = first.backend().is_asynchronous() && others.count() > 0;
        Self {
            first: Local::new(first),
            others,
            opened: Vec::new(),
            lowered: Vec::new(),
            tables: records.then(Tables::default),
            wants_head: VecDeque::new(),
            head: HeadPart::default(),
        }
    }

    /// All ranks' networks, by rank, at least one; each but the first on a thread of its own.
    ///
    /// # Panics
    /// If the system refuses the threads.
    pub fn of_threads(networks: Vec<Network<B>>) -> Self {
        let mut networks = networks.into_iter();
        let first = networks.next().expect("at least one rank");
        Self::new(first, threads("windlass", networks.map(Device::new)))
    }

    /// Has the other ranks do as `fill` says of an order.
    fn tell(&mut self, step: Step, fill: impl FnOnce(&mut Order)) {
        let Self { others, opened, lowered, tables, .. } = self;
        others.tell(|order| {
            order.begin(step);
            order.opened.append(opened);
            order.lowered.append(lowered);
            fill(order);
            tables.iter_mut().for_each(|tables| tables.note(order));
        });
    }

    /// Rank 0's network, and a launch as it is to see it.
    fn first<'a>(&'a mut self, launch: Launch<'a>) -> (&'a mut Local<B>, Launch<'a>) {
        let launch = self.tables.as_ref().map_or(launch, |tables| tables.of(launch));
        (&mut self.first, launch)
    }
}

/// Threads for all ranks but the first, named after whose ranks they are.
pub(crate) fn threads<B: Backend>(of: &str, devices: impl Iterator<Item = Device<B>>) -> Others {
    let start = |(rank, device)| -> Box<dyn RankLink> { Box::new(RankThread::start(of, rank, device)) };
    Others::new((1..).zip(devices).map(start).collect())
}

impl<B: Backend> Runner for Ranks<B> {
    fn config(&self) -> &ModelConfig {
        self.first.config()
    }

    fn arithmetic(&self) -> Arithmetic {
        self.first.arithmetic()
    }

    fn ranks(&self) -> usize {
        1 + self.others.count()
    }

    fn allocate(&mut self, capacity: Capacity) {
        self.tell(Step::Allocate(capacity), |_| {});
        self.others.reserve(capacity.rows, self.first.config().hidden);
        self.first.allocate(capacity);
        self.head.reserve(capacity.rows);
    }

    fn launches_under_way(&self) -> usize {
        1
    }

    fn runs_ahead(&self) -> bool {
        self.first.runs_ahead()
    }

    fn draws(&self) -> bool {
        self.first.draws()
    }

    fn open(&mut self, table: u32, contents: &KvTable) {
        if self.others.count() > 0 {
            self.opened.push(OpenedTable::new(table, contents));
        }
    }

    fn lower(&mut self, table: u32, position: usize, slot: u32) {
        if self.others.count() > 0 {
            self.lowered.push(LoweredSlot { table, position: position as u32, slot });
        }
    }

    fn prelude(&mut self, tokens: &[u32], initial: &[f32], launch: Launch<'_>) {
        self.tell(Step::Prelude, |order| order.set_entering(tokens, initial, launch));
        let (first, launch) = self.first(launch);
        first.prelude(tokens, initial, launch);
    }

    fn start_core(&mut self, launch: Launch<'_>, stops: &[Stop]) {
        self.tell(Step::Core, |order| {
            order.set_rows(launch);
            order.stops.extend_from_slice(stops);
        });
        let (first, launch) = self.first(launch);
        first.start_core(launch, stops);
    }

    fn next_done(&mut self) -> Part {
        self.first.next_done()
    }

    fn finish_core(&mut self, changes: &mut Vec<LatentChange>) {
        self.first.finish_core(changes);
    }

    fn start_coda(&mut self, launch: Launch<'_>, wanted: Wanted<'_>) {
        let mut wants_head = false;
        self.tell(Step::Coda, |order| {
            order.set_rows(launch);
            order.set_wanted(wanted);
            wants_head = order.wants_head();
        });
        let (first, launch) = self.first(launch);
        first.start_coda(launch, wanted);
        self.wants_head.push_back(wants_head);
    }

    fn finish_coda(&mut self, found: &mut Found) {
        let Self { first, others, head, wants_head, .. } = self;
        first.finish_head(head);
        if wants_head.pop_front().expect("a coda is under way") {
            others.join(head, first.config().vocabulary);
        }
        head.hand_over(found);
    }

    fn busy(&self) -> Option<Busy> {
        self.first.busy()
    }
}
