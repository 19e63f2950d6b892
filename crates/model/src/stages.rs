//! A model cut into stages: each a part of the network on a device of its own, with its own weights and K/V.
//!
//! Stages form a ring. Rows enter at the first, which has prelude and adapter before its share of the core; what the core
//! makes of them goes from stage to stage up to the last, which compares new latents with old ones and has coda and head
//! behind its share. The new latents go back to the first stage, where the next iteration begins. While one launch is at the
//! second stage another can be at the first, so as many launches as there are stages keep all of them busy.
//!
//! Every stage addresses K/V by the same block ids and runs the same operations in the same order as one device would: the
//! bits are the same. A stage may be several ranks, which share each of its products; then they are those of as many ranks.
//!
//! Devices of one process hand activations to each other, each rank to the same rank of the next stage: a launch that comes to a
//! stage finds its rows there, or its device waits for them. So do devices of several processes that are linked; to and from others they travel through host memory, with
//! the launch they belong to.

mod cut;
mod parcel;
mod stage;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use windlass_kernels::{Arithmetic, Backend, KvTable, LatentChange, Stop};

use crate::config::ModelConfig;
use crate::network::{Capacity, Launch, Network};
use crate::ranks::{Device, OpenedTable, Step, path, threads};
use crate::runner::{Busy, Found, Part, Runner, Wanted};
pub use cut::{Costs, TooManyStages, check, cut};
use parcel::Parcel;
use stage::{Answer, Message, Stage};
pub use stage::{LocalRanks, StageRanks};

/// A model on a ring of stages.
pub struct Ring {
    config: ModelConfig,
    arithmetic: Arithmetic,
    /// Of each stage.
    ranks: usize,
    /// Whether the last stage draws tokens.
    draws: bool,
    /// Whether activations go from stage to stage with launches, and not by devices.
    by_host: bool,
    stages: Vec<Member>,
    answers: Receiver<Answer>,
    /// Parcels that nobody uses. There are two for each launch: while one is under way the one before can be on its way back with
    /// latents.
    #[expect(clippy::vec_box, reason = "parcels travel in their boxes")]
    spare: Vec<Box<Parcel>>,
    /// What the next core launch begins with, once rows entered.
    entering: Option<Box<Parcel>>,
    /// What lanes have begun with since rows last entered.
    opened: Vec<OpenedTable>,
    /// The launch that is collected next.
    done: Option<Box<Parcel>>,
    busy: Busy,
    meter: StageMeter,
}

fn stage_name(number: usize) -> String {
    format!("windlass-stage-{number}")
}

fn local_ranks<B: Backend>((number, devices): (usize, Vec<Device<B>>)) -> Box<dyn StageRanks> {
    let mut devices = devices.into_iter();
    let first = devices.next().expect("a stage has at least one rank");
    Box::new(LocalRanks::new(first, threads(&stage_name(number), devices)))
}

/// Devices for the networks of each stage by rank, each rank with a way to the same rank of the next stage, and from the last to the
/// first. One stage alone has no next.
fn connected<B: Backend>(parts: Vec<Vec<Network<B>>>) -> Vec<Vec<Device<B>>> {
    let stages = parts.len();
    if stages == 1 {
        return parts.into_iter().map(|networks| networks.into_iter().map(Device::new).collect()).collect();
    }
    let ways =
        |networks: &Vec<Network<B>>| -> (Vec<_>, Vec<_>) { networks.iter().map(|_| path(stages)).unzip() };
    let (mut inlets, outlets): (Vec<_>, Vec<_>) = parts.iter().map(ways).unzip();
    // The way from a stage ends at the next.
    inlets.rotate_right(1);
    let stage = |((networks, inlets), outlets): ((Vec<Network<B>>, Vec<_>), Vec<_>)| {
        let ways = inlets.into_iter().zip(outlets);
        let device = |(network, ways)| Device::between(network, ways);
        networks.into_iter().zip(ways).map(device).collect()
    };
    parts.into_iter().zip(inlets).zip(outlets).map(stage).collect()
}

/// A stage, seen from outside.
struct Member {
    inbox: SyncSender<Message>,
    thread: Option<JoinHandle<Option<Box<dyn StageRanks>>>>,
}

/// How long each stage has computed so far. Clones read the same.
#[derive(Debug, Clone)]
pub struct StageMeter(Vec<Arc<AtomicU64>>);

impl StageMeter {
    /// By stage.
    pub fn busy(&self) -> Vec<Duration> {
        self.0.iter().map(|ns| Duration::from_nanos(ns.load(Ordering::Relaxed))).collect()
    }
}

impl Ring {
    /// A ring of the parts of one network, in order, the networks of each by rank; each on a thread of its own. There is at least
    /// one.
    ///
    /// # Panics
    /// If the system refuses the threads.
    pub fn new<B: Backend>(parts: Vec<Vec<Network<B>>>) -> Self {
        let (first, ranks) = (&parts[0][0], parts[0].len());
        let (config, arithmetic) = (first.config().clone(), first.arithmetic());
        let stages = connected(parts).into_iter().enumerate().map(local_ranks).collect();
        Self::of(config, arithmetic, ranks, stages, true)
    }

    /// A ring of stages whose ranks may be anywhere, `ranks` in each. Activations go with launches, unless their devices `are_linked`.
    ///
    /// # Panics
    /// If the system refuses the threads.
    pub fn of(
        config: ModelConfig,
        arithmetic: Arithmetic,
        ranks: usize,
        of_stages: Vec<Box<dyn StageRanks>>,
        are_linked: bool,
    ) -> Self {
        let draws = of_stages.last().is_some_and(|ranks| ranks.draws());
        let meter = StageMeter(of_stages.iter().map(|_| Arc::default()).collect());
        // There are fewer messages than this at any time, so that nobody waits to send one.
        let messages = 5 * of_stages.len();
        let (answering, answers) = sync_channel(messages);
        let mut stages: Vec<Member> = Vec::new();
        for (number, of_stage) in of_stages.into_iter().enumerate().rev() {
            let stage = Stage {
                number,
                ranks: of_stage,
                next: stages.last().map(|behind: &Member| behind.inbox.clone()),
                answers: answering.clone(),
                busy_ns: Arc::clone(&meter.0[number]),
                begun: VecDeque::new(),
                last: Instant::now(),
            };
            let (inbox, messages) = sync_channel(messages);
            let thread = thread::Builder::new()
                .name(stage_name(number))
                .spawn(move || stage.run(&messages))
                .expect("threads of the stages");
            stages.push(Member { inbox, thread: Some(thread) });
        }
        stages.reverse();
        let (spare, opened, busy) = (Vec::new(), Vec::new(), Busy::default());
        Self {
            config,
            arithmetic,
            ranks,
            draws,
            by_host: !are_linked,
            stages,
            answers,
            spare,
            entering: None,
            opened,
            done: None,
            busy,
            meter,
        }
    }

    /// Tells how long each stage computes from now on.
    pub fn meter(&self) -> StageMeter {
        self.meter.clone()
    }

    /// A parcel with nothing in it.
    fn parcel(&mut self) -> Box<Parcel> {
        let mut parcel = self.spare.pop().expect("a parcel for every launch there can be");
        parcel.clear();
        parcel
    }

    fn send(&self, stage: usize, message: Message) {
        if self.stages[stage].inbox.send(message).is_err() {
            // It says why.
            while !matches!(self.answer(), Answer::Lost { .. }) {}
        }
    }

    /// The next answer of any stage.
    ///
    /// # Panics
    /// If a stage did.
    fn answer(&self) -> Answer {
        match self.answers.recv().expect("a stage that ends says so") {
            Answer::Lost { stage, panic } => panic!("stage {stage} of {}: {panic}", self.stages.len()),
            answer => answer,
        }
    }

    fn collect(&mut self) -> Box<Parcel> {
        let parcel = self.done.take().expect("a launch is collected when it is done");
        self.busy = parcel.busy;
        parcel
    }
}

impl Runner for Ring {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    fn ranks(&self) -> usize {
        self.ranks
    }

    fn draws(&self) -> bool {
        self.draws
    }

    fn allocate(&mut self, capacity: Capacity) {
        (0..self.stages.len()).for_each(|stage| self.send(stage, Message::Allocate(capacity)));
        let parcel = |_| Box::new(Parcel::new(capacity.rows, self.config.hidden, self.by_host));
        let parcels = (0..2 * self.launches_under_way()).map(parcel).collect();
        let mut left = self.stages.len();
        while left > 0 {
            match self.answer() {
                Answer::Allocated => left -= 1,
                // Of the memory before.
                Answer::Spare(_) => {}
                Answer::Done(_) | Answer::Lost { .. } => panic!("memory is changed under a launch"),
            }
        }
        self.spare = parcels;
    }

    fn launches_under_way(&self) -> usize {
        self.stages.len()
    }

    fn open(&mut self, table: u32, contents: &KvTable) {
        self.opened.push(OpenedTable::new(table, contents));
    }

    fn prelude(&mut self, tokens: &[u32], initial: &[f32], launch: Launch<'_>) {
        let mut parcel = self.parcel();
        // A lane's first rows enter by a prelude, and that comes to every stage.
        parcel.entering.opened.append(&mut self.opened);
        parcel.entering.set_entering(tokens, initial, launch);
        self.entering = Some(parcel);
    }

    fn start_core(&mut self, launch: Launch<'_>, _: &[Stop]) {
        let mut parcel = self.entering.take().unwrap_or_else(|| self.parcel());
        parcel.order.begin(Step::Core);
        parcel.order.set_rows(launch);
        self.send(0, Message::Launch(parcel));
    }

    fn next_done(&mut self) -> Part {
        loop {
            match self.answer() {
                Answer::Done(parcel) => return self.done.insert(parcel).part(),
                Answer::Spare(parcel) => self.spare.push(parcel),
                Answer::Allocated | Answer::Lost { .. } => {}
            }
        }
    }

    fn finish_core(&mut self, changes: &mut Vec<LatentChange>) {
        let mut parcel = self.collect();
        std::mem::swap(changes, &mut parcel.outcome.changes);
        if self.stages.len() > 1 {
            // Before anything else that is started from now on.
            self.send(0, Message::Latents(parcel));
        } else {
            self.spare.push(parcel);
        }
    }

    fn start_coda(&mut self, launch: Launch<'_>, wanted: Wanted<'_>) {
        let mut parcel = self.parcel();
        parcel.order.begin(Step::Coda);
        parcel.order.set_rows(launch);
        parcel.order.set_wanted(wanted);
        parcel.order.set_draws(wanted.draws);
        self.send(self.stages.len() - 1, Message::Launch(parcel));
    }

    fn finish_coda(&mut self, found: &mut Found) {
        let mut parcel = self.collect();
        parcel.outcome.head.hand_over(found);
        self.spare.push(parcel);
    }

    fn busy(&self) -> Option<Busy> {
        Some(self.busy)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let is_failure = thread::panicking();
        // One that is lost has stopped.
        let stop = |stage: &Member| drop(stage.inbox.send(Message::Stop { is_failure }));
        if is_failure {
            self.stages.iter().for_each(stop);
        }
        // In order, so that a launch that one has handed on comes through; and none ends before all have stopped, since a launch that
        // one has begun may wait for rows of another. A panic was answered.
        let mut ended = Vec::new();
        for stage in &mut self.stages {
            if !is_failure {
                stop(stage);
            }
            ended.extend(stage.thread.take().map(JoinHandle::join));
        }
        // Those elsewhere hear of the end before this process' own devices leave them.
        ended.reverse();
    }
}
