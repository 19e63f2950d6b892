//! Tensor parallelism: one model on several ranks, each with a [`Shard`] of it.
//!
//! All ranks run every launch: [`Ranks`] runs it as rank 0 and sends the others an [`Order`] that says all they need. They meet
//! twice in each layer, where [`Backend::all_reduce`] adds up what each has of a projection; so after every layer each has all
//! rows. Of the head's outputs each has a part, which it hands to rank 0. Where another rank lives, a thread or a process of
//! another machine, only its [`RankLink`] knows.

mod follower;
mod order;
mod thread;
mod turns;

use std::sync::Arc;

use windlass_kernels::{Arithmetic, Backend, KvTable, LargestOutput, LatentChange};

use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::LoadError;
use crate::network::{Capacity, Launch, Network};
use crate::runner::{Local, Part, Runner, Wanted};
use crate::shard::{RanksError, Shard};
use crate::weights::LoadProgress;
pub use follower::{Follower, HeadPart};
pub use order::{OpenedTable, Order, OrderRow, Step};
use thread::RankThread;
pub use turns::Turns;

/// The way from rank 0 to another rank. Both operations panic if that is lost.
pub trait RankLink: Send {
    /// Has the rank obey `order` after those before.
    fn send(&mut self, order: &Arc<Order>);
    /// The rank's part of what was wanted of the head, for each coda that wanted something.
    fn receive(&mut self) -> Arc<HeadPart>;
}

/// A network over all ranks of a group: every launch is over when it has started.
pub struct Ranks<B: Backend> {
    /// Before the links, so that its end frees those that wait for it before it waits for theirs.
    first: Local<B>,
    /// The others, by rank.
    links: Vec<Box<dyn RankLink>>,
    orders: Turns<Order>,
    /// What lanes have begun with since the last order.
    opened: Vec<OpenedTable>,
    /// The others' parts of what the last coda found.
    parts: Vec<Arc<HeadPart>>,
}

impl<B: Backend> Ranks<B> {
    /// Loads a rank's part of the model onto each of `backends`, which are one group by rank, all at once. The others become
    /// threads.
    ///
    /// # Panics
    /// If the system refuses the threads.
    pub fn load(
        backends: Vec<B>,
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, LoadError> {
        let shards = Shard::all(config, backends.len())?;
        let mut ranks = backends.into_iter().zip(shards);
        let (backend, shard) = ranks.next().expect("at least one rank");
        let networks: Result<Vec<_>, LoadError> = std::thread::scope(|scope| {
            let load = |(backend, shard)| {
                scope.spawn(move || Network::load_shard(backend, checkpoint, config, shard, &mut |_| {}))
            };
            let others: Vec<_> = ranks.map(load).collect();
            let first = Network::load_shard(backend, checkpoint, config, shard, progress);
            let others = others.into_iter().map(|other| other.join().expect("a rank that loads"));
            std::iter::once(first).chain(others).collect()
        });
        Ok(Self::of_threads(networks?))
    }

    /// The same of any shape with random weights: for measurements.
    pub fn synthetic(backends: Vec<B>, config: &ModelConfig, seed: u64) -> Result<Self, RanksError> {
        let shards = Shard::all(config, backends.len())?;
        let network = |(backend, shard)| Network::synthetic(backend, config, shard, seed);
        Ok(Self::of_threads(backends.into_iter().zip(shards).map(network).collect()))
    }

    /// All ranks' networks; each but the first on a thread of its own.
    fn of_threads(networks: Vec<Network<B>>) -> Self {
        let mut networks = networks.into_iter();
        let first = networks.next().expect("at least one rank");
        let link = |(rank, network)| -> Box<dyn RankLink> { Box::new(RankThread::start(rank, network)) };
        Self::new(first, (1..).zip(networks).map(link).collect())
    }

    /// Rank 0's network, and the way to each of the others by rank.
    pub fn new(first: Network<B>, links: Vec<Box<dyn RankLink>>) -> Self {
        Self {
            first: Local::new(first),
            links,
            orders: Turns::default(),
            opened: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// Has the other ranks do as `fill` says of an order.
    fn send(&mut self, step: Step, fill: impl FnOnce(&mut Order)) {
        if self.links.is_empty() {
            return;
        }
        let order = self.orders.fill(|order| {
            order.begin(step, &mut self.opened);
            fill(order);
        });
        for link in &mut self.links {
            link.send(order);
        }
    }
}

impl<B: Backend> Runner for Ranks<B> {
    fn config(&self) -> &ModelConfig {
        self.first.config()
    }

    fn arithmetic(&self) -> Arithmetic {
        self.first.arithmetic()
    }

    fn ranks(&self) -> usize {
        1 + self.links.len()
    }

    fn allocate(&mut self, capacity: Capacity) {
        self.send(Step::Allocate(capacity), |_| {});
        if !self.links.is_empty() {
            let hidden = self.first.config().hidden;
            self.orders.each(|order| order.reserve(capacity.rows, hidden));
        }
        self.first.allocate(capacity);
    }

    fn launches_under_way(&self) -> usize {
        1
    }

    fn open(&mut self, table: u32, contents: &KvTable) {
        if !self.links.is_empty() {
            self.opened.push(OpenedTable::new(table, contents));
        }
    }

    fn prelude(&mut self, tokens: &[u32], initial: &[f32], launch: Launch<'_>) {
        self.send(Step::Prelude, |order| {
            order.set_rows(launch);
            order.tokens.extend_from_slice(tokens);
            order.initial.extend_from_slice(initial);
        });
        self.first.prelude(tokens, initial, launch);
    }

    fn start_core(&mut self, launch: Launch<'_>) {
        self.send(Step::Core, |order| order.set_rows(launch));
        self.first.start_core(launch);
    }

    fn next_done(&mut self) -> Part {
        self.first.next_done()
    }

    fn finish_core(&mut self, changes: &mut Vec<LatentChange>) {
        self.first.finish_core(changes);
    }

    fn start_coda(&mut self, launch: Launch<'_>, wanted: Wanted<'_>) {
        self.send(Step::Coda, |order| {
            order.set_rows(launch);
            order.logits.extend_from_slice(wanted.logits);
            order.most_likely.extend_from_slice(wanted.most_likely);
        });
        self.first.start_coda(launch, wanted);
        if !wanted.is_empty() {
            self.parts.extend(self.links.iter_mut().map(|link| link.receive()));
        }
    }

    fn finish_coda(&mut self, logits: &mut Vec<f32>, most_likely: &mut Vec<u32>) {
        if self.parts.is_empty() {
            return self.first.finish_coda(logits, most_likely);
        }
        merge_logits(logits, &self.first.logits, &self.parts, self.first.config().vocabulary);
        most_likely.clear();
        most_likely.extend(self.first.most_likely.iter().enumerate().map(|(row, &first)| {
            let parts = self.parts.iter().map(|part| part.most_likely[row]);
            parts.fold(first, LargestOutput::or_later).output
        }));
        self.parts.clear();
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
