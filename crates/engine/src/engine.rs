//! The engine: plan, run, apply, tick after tick. Here: who is served, and from which memory.

mod run;

use std::time::Duration;

use windlass_model::{Capacity, Runner};

use crate::clock::Clock;
use crate::config::{EngineConfig, EngineConfigError};
use crate::cost::Costs;
use crate::event::{Event, FinishReason, Usage};
use crate::lane::{Grouping, Lane, Span};
use crate::launch::{LaunchRecord, Phase};
use crate::load::Load;
use crate::memory::Memory;
use crate::request::{InvalidRequest, Request, RequestId, RequestLimits};
use crate::scheduler::Scheduler;
use crate::sequence::Sequence;
use crate::waiting::Waiting;
use run::Work;

/// Why a request was not accepted. Nothing of it stays behind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It can never be served.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// It could be served later.
    #[error("the queue is full: {limit} requests wait already, try again later")]
    QueueFull {
        /// The configured limit.
        limit: usize,
    },
}

/// Serves many sequences on one model.
pub struct Engine<R: Runner> {
    runner: R,
    config: EngineConfig,
    clock: Box<dyn Clock>,
    scheduler: Scheduler,
    costs: Costs,
    waiting: Waiting,
    /// Requests that came with all their tokens: the next tick says so.
    complete: Vec<(RequestId, FinishReason, Usage)>,
    /// In order of admission.
    lanes: Vec<Lane>,
    memory: Memory,
    /// Requests accepted so far.
    arrivals: u64,
    counters: Load,
    launches: Vec<LaunchRecord>,
    work: Work,
}

impl<R: Runner> Engine<R> {
    /// An engine with all its memory.
    pub fn new(
        mut runner: R,
        config: EngineConfig,
        clock: Box<dyn Clock>,
    ) -> Result<Self, EngineConfigError> {
        config.validate(runner.config())?;
        runner.allocate(config.capacity(runner.config()));
        Ok(Self::assemble(runner, config, clock))
    }

    /// An idle engine's model under another configuration; in the same memory, where that asks for as much. Nothing else
    /// stays: counters, measured costs and kept prompts are those of a new engine.
    pub fn reconfigure(self, config: EngineConfig) -> Result<Self, EngineConfigError> {
        assert!(self.is_idle(), "an engine is reconfigured while it serves");
        config.validate(self.runner.config())?;
        let Self { mut runner, config: before, clock, .. } = self;
        let capacity = config.capacity(runner.config());
        if capacity != before.capacity(runner.config()) {
            runner.allocate(capacity);
        }
        Ok(Self::assemble(runner, config, clock))
    }

    fn assemble(runner: R, config: EngineConfig, clock: Box<dyn Clock>) -> Self {
        let Capacity { latents, blocks, .. } = config.capacity(runner.config());
        Self {
            scheduler: Scheduler::new(&config),
            costs: Costs::default(),
            waiting: Waiting::default(),
            complete: Vec::new(),
            lanes: Vec::with_capacity(config.max_lanes),
            memory: Memory::new(&config, blocks, latents),
            arrivals: 0,
            counters: Load::default(),
            launches: Vec::new(),
            work: Work::default(),
            runner,
            config,
            clock,
        }
    }

    /// What requests are checked against.
    pub fn limits(&self) -> RequestLimits<'_> {
        RequestLimits {
            model: self.runner.config(),
            max_depth: self.config.max_depth,
            max_prompt: self.config.prefill_positions,
        }
    }

    /// Accepts a request, or says why not. Its events come from later ticks under `id`, which must not be in use.
    pub fn submit(&mut self, id: RequestId, request: Request) -> Result<(), SubmitError> {
        request.validate(self.limits())?;
        if let Some(reason) = request.end_of_emitted(&self.runner.config().stop_tokens) {
            let sequence = Sequence::new(id, request, self.arrivals, self.clock.now());
            self.complete.push((id, reason, sequence.usage()));
            return Ok(());
        }
        request.validate_memory(self.memory.blocks.total())?;
        if self.waiting.len() >= self.config.max_waiting {
            return Err(SubmitError::QueueFull { limit: self.config.max_waiting });
        }
        self.arrivals += 1;
        self.waiting.push(Sequence::new(id, request, self.arrivals, self.clock.now()));
        Ok(())
    }

    /// Forgets a request and frees all it holds. One that is unknown or over is left alone.
    pub fn cancel(&mut self, id: RequestId) {
        self.waiting.remove(id);
        self.complete.retain(|(complete, ..)| *complete != id);
        if let Some(index) = self.lanes.iter().position(|lane| lane.sequence.id == id) {
            self.close(index);
        }
    }

    /// Whether nothing runs and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.lanes.is_empty() && self.waiting.is_empty() && self.complete.is_empty()
    }

    /// Advances every row in flight by one core iteration and appends what came of it to `events`.
    pub fn tick(&mut self, events: &mut Vec<Event>) {
        let mut work = std::mem::take(&mut self.work);
        self.launches.clear();
        let complete = self.complete.drain(..);
        events.extend(complete.map(|(id, reason, usage)| Event::Finished(id, reason, usage)));
        self.end_late(events);
        self.admit();
        self.plan(&mut work);
        self.run_core(&mut work);
        self.advance(&mut work);
        self.run_coda(&mut work);
        self.apply(&mut work, events);
        self.work = work;
        if self.lanes.is_empty() {
            assert!(self.memory.is_whole(), "memory leaked from lanes that are gone");
        }
    }

    /// What ran in the last tick.
    pub fn launches(&self) -> &[LaunchRecord] {
        &self.launches
    }

    /// How busy the engine is.
    pub fn load(&self) -> Load {
        let waiting = self.waiting.iter().map(|sequence| sequence.owed_from(0));
        let running = self.lanes.iter().map(Lane::owed_core_iterations);
        Load {
            running: self.lanes.len(),
            waiting: self.waiting.len(),
            rows: self.memory.latents.used(),
            blocks_used: self.memory.blocks.used(),
            blocks_cached: self.memory.blocks.cached(),
            blocks_total: self.memory.blocks.total(),
            queued_core_iterations: waiting.chain(running).sum(),
            ..self.counters.clone()
        }
    }

    /// Ends requests whose deadline has passed.
    fn end_late(&mut self, events: &mut Vec<Event>) {
        let now = self.clock.now();
        while let Some(sequence) = self.waiting.pop_late(now) {
            events.push(Event::Finished(sequence.id, FinishReason::Timeout, sequence.usage()));
        }
        while let Some(index) = self.lanes.iter().position(|lane| lane.sequence.is_late(now)) {
            let sequence = self.close(index);
            events.push(Event::Finished(sequence.id, FinishReason::Timeout, sequence.usage()));
        }
    }

    /// Opens lanes for waiting sequences in their turn, as long as the next one fits; one of lower priority makes room.
    fn admit(&mut self) {
        while let Some(priority) = self.waiting.first().map(|sequence| sequence.request.priority) {
            if self.open_first() {
                continue;
            }
            match self.last_lane().filter(|&lane| self.lanes[lane].sequence.request.priority < priority) {
                Some(lane) => self.preempt(lane),
                None => return,
            }
        }
    }

    /// Opens a lane for the first waiting sequence, if there is memory.
    fn open_first(&mut self) -> bool {
        let grouping = self.grouping();
        let first = self.waiting.first();
        let place = first.and_then(|first| self.memory.place(first, grouping, self.lanes.is_empty()));
        let Some(place) = place else { return false };
        let sequence = self.waiting.pop_first().expect("the first was placed");
        if sequence.generated() == 0 && sequence.prefix_granularity(grouping.segment).is_some() {
            self.counters.prefix_query_positions_total += sequence.request.prompt.len() as u64;
            self.counters.prefix_hit_positions_total += place.reused as u64;
        }
        self.runner.open(place.table as u32, &self.memory.tables[place.table]);
        self.lanes.push(Lane::open(sequence, place, grouping));
        true
    }

    /// Fills the plan. Lanes that come last make room until there are blocks for it; a lane alone always has room, since its
    /// request was accepted.
    fn plan(&mut self, work: &mut Work) {
        self.scheduler.next_turn();
        loop {
            self.scheduler.plan(&self.lanes, &mut work.plan);
            let tables = &self.memory.tables;
            let missing = |span: &Span| {
                let lane = &self.lanes[span.lane];
                lane.blocks_missing(*span, &tables[lane.table])
            };
            if work.plan.iter().map(missing).sum::<usize>() <= self.memory.blocks.available() {
                return;
            }
            assert!(self.lanes.len() > 1, "an accepted request does not fit alone");
            let last = self.last_lane().expect("several are open");
            self.preempt(last);
        }
    }

    /// The lane that comes last: of the lowest priority, the youngest.
    fn last_lane(&self) -> Option<usize> {
        (0..self.lanes.len()).max_by_key(|&lane| self.lanes[lane].sequence.turn())
    }

    /// Takes a lane away; its sequence waits to be replayed.
    fn preempt(&mut self, index: usize) {
        self.counters.preemptions_total += 1;
        let sequence = self.close(index);
        self.waiting.push(sequence);
    }

    fn close(&mut self, index: usize) -> Sequence {
        self.memory.close(self.lanes.remove(index))
    }

    fn grouping(&self) -> Grouping {
        Grouping {
            segment: self.config.prefill_segment,
            most: self.config.prefill_positions,
            vocabulary: self.runner.config().vocabulary,
        }
    }

    /// Notes a launch that began at `start` and has just ended.
    fn record(&mut self, phase: Phase, rows: usize, start: Duration) {
        let launch = LaunchRecord { phase, rows: rows as u32, start, end: self.clock.now() };
        self.costs.observe(&launch);
        self.launches.push(launch);
    }
}
