//! A model cut into stages: each a part of the network on a device of its own, with its own weights and K/V.
//!
//! Stages form a ring. Rows enter at the first, which has prelude and adapter before its share of the core; what the core
//! makes of them goes from stage to stage up to the last, which compares new latents with old ones and has coda and head
//! behind its share. The new latents go back to the first stage, where the next iteration begins. While one launch is at the
//! second stage another can be at the first, so as many launches as there are stages keep all of them busy.
//!
//! Every stage addresses K/V by the same block ids and runs the same operations in the same order as one device would: the
//! bits are the same.
//!
//! Activations travel through host memory, with the launch they belong to. Where devices can hand them to each
//! other, only a stage's part of an iteration and the way back of the latents have to know.

mod cut;
mod parcel;
mod stage;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use windlass_kernels::{Arithmetic, Backend, LatentChange};

use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::LoadError;
use crate::network::{Capacity, Launch, Network};
use crate::runner::{Busy, Local, Part, Runner, Wanted};
use crate::weights::LoadProgress;
pub use cut::{Costs, TooManyStages, check, cut};
use parcel::Parcel;
use stage::{Answer, Message, Stage};

/// Loads a model onto backends: onto one as it is, onto several as a ring of stages.
pub fn load<B: Backend>(
    backends: Vec<B>,
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Box<dyn Runner>, LoadError> {
    let parts = Network::load_parts(assign(backends, config)?, checkpoint, config, progress)?;
    Ok(runner(parts))
}

/// The same with random weights: for measurements.
pub fn synthetic<B: Backend>(
    backends: Vec<B>,
    config: &ModelConfig,
    seed: u64,
) -> Result<Box<dyn Runner>, TooManyStages> {
    Ok(runner(Network::synthetic_parts(assign(backends, config)?, config, seed)))
}

/// The core layers that each of these backends gets as a stage: by what parts of the model cost on the first of them, for tokens
/// of the depth that the model was trained for.
pub fn assign<B: Backend>(
    mut backends: Vec<B>,
    config: &ModelConfig,
) -> Result<Vec<(B, Range<usize>)>, TooManyStages> {
    check(config, backends.len())?;
    if backends.len() == 1 {
        return Ok(backends.into_iter().map(|backend| (backend, 0..config.core_layers)).collect());
    }
    let (costs, first) = Costs::measure(backends.remove(0), config);
    backends.insert(0, first);
    let stages = cut(config, &costs, f64::from(config.mean_recurrence), backends.len())?;
    Ok(backends.into_iter().zip(stages).collect())
}

/// What runs the parts of a network: one as it is, several as a ring.
pub fn runner<B: Backend>(mut parts: Vec<Network<B>>) -> Box<dyn Runner> {
    if parts.len() > 1 {
        return Box::new(Ring::new(parts));
    }
    Box::new(Local::new(parts.remove(0)))
}

/// A model on a ring of stages.
pub struct Ring {
    config: ModelConfig,
    arithmetic: Arithmetic,
    stages: Vec<Member>,
    answers: Receiver<Answer>,
    /// Parcels that nobody uses. There are two for each launch: while one is under way the one before can be on its way back with
    /// latents.
    #[expect(clippy::vec_box, reason = "parcels travel in their boxes")]
    spare: Vec<Box<Parcel>>,
    /// What the next core launch begins with, once rows entered.
    entering: Option<Box<Parcel>>,
    /// The launch that is collected next.
    done: Option<Box<Parcel>>,
    busy: Busy,
    meter: StageMeter,
}

/// A stage, seen from outside.
struct Member {
    inbox: SyncSender<Message>,
    thread: Option<JoinHandle<()>>,
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
    /// A ring of the parts of one network, in order, each on a thread of its own; at least one.
    ///
    /// # Panics
    /// If the system refuses the threads.
    pub fn new<B: Backend>(parts: Vec<Network<B>>) -> Self {
        let (config, arithmetic) = (parts[0].config().clone(), parts[0].arithmetic());
        let meter = StageMeter(parts.iter().map(|_| Arc::default()).collect());
        // There are fewer messages than this at any time, so that nobody waits to send one.
        let messages = 5 * parts.len();
        let (answering, answers) = sync_channel(messages);
        let mut stages: Vec<Member> = Vec::new();
        for (number, network) in parts.into_iter().enumerate().rev() {
            let stage = Stage {
                number,
                workspace: network.workspace(Capacity::NOTHING),
                network,
                next: stages.last().map(|behind: &Member| behind.inbox.clone()),
                answers: answering.clone(),
                busy_ns: Arc::clone(&meter.0[number]),
            };
            let (inbox, messages) = sync_channel(messages);
            let thread = thread::Builder::new()
                .name(format!("windlass-stage-{number}"))
                .spawn(move || stage.run(&messages))
                .expect("threads of the stages");
            stages.push(Member { inbox, thread: Some(thread) });
        }
        stages.reverse();
        let (spare, busy) = (Vec::new(), Busy::default());
        Self { config, arithmetic, stages, answers, spare, entering: None, done: None, busy, meter }
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

    fn start(&mut self, part: Part, mut parcel: Box<Parcel>, launch: Launch<'_>) {
        parcel.part = part;
        parcel.rows.fill(launch);
        let stage = if part == Part::Core { 0 } else { self.stages.len() - 1 };
        self.send(stage, Message::Launch(parcel));
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
        let mut parcel = self.done.take().expect("a launch is collected when it is done");
        parcel.release_tables();
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

    fn allocate(&mut self, capacity: Capacity) {
        (0..self.stages.len()).for_each(|stage| self.send(stage, Message::Allocate(capacity)));
        let parcel = |_| Box::new(Parcel::new(capacity.rows, self.config.hidden));
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

    fn prelude(&mut self, tokens: &[u32], initial: &[f32], launch: Launch<'_>) {
        let mut parcel = self.parcel();
        parcel.entering.fill(tokens, initial, launch);
        self.entering = Some(parcel);
    }

    fn start_core(&mut self, launch: Launch<'_>) {
        let parcel = self.entering.take().unwrap_or_else(|| self.parcel());
        self.start(Part::Core, parcel, launch);
    }

    fn next_done(&mut self) -> Part {
        loop {
            match self.answer() {
                Answer::Done(parcel) => return self.done.insert(parcel).part,
                Answer::Spare(parcel) => self.spare.push(parcel),
                Answer::Allocated | Answer::Lost { .. } => {}
            }
        }
    }

    fn finish_core(&mut self, changes: &mut Vec<LatentChange>) {
        let mut parcel = self.collect();
        std::mem::swap(changes, &mut parcel.changes);
        if self.stages.len() > 1 {
            // Before anything else that is started from now on.
            self.send(0, Message::Latents(parcel));
        } else {
            self.spare.push(parcel);
        }
    }

    fn start_coda(&mut self, launch: Launch<'_>, wanted: Wanted<'_>) {
        let mut parcel = self.parcel();
        parcel.want(wanted);
        self.start(Part::Coda, parcel, launch);
    }

    fn finish_coda(&mut self, logits: &mut Vec<f32>, most_likely: &mut Vec<u32>) {
        let mut parcel = self.collect();
        std::mem::swap(logits, &mut parcel.logits);
        most_likely.clear();
        most_likely.extend(parcel.most_likely.iter().map(|token| token.output));
        self.spare.push(parcel);
    }

    fn busy(&self) -> Option<Busy> {
        Some(self.busy)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for stage in &self.stages {
            // One that is lost has stopped.
            let _ = stage.inbox.send(Message::Stop);
        }
        for thread in self.stages.iter_mut().filter_map(|stage| stage.thread.take()) {
            // Its panic was answered.
            let _ = thread.join();
        }
    }
}
