//! The engine: plan, run, apply, tick after tick. Here: who is served, and from which memory.

mod turns;

use windlass_model::{Capacity, Runner};

use crate::batch::Batch;
use crate::clock::Clock;
use crate::config::{EngineConfig, EngineConfigError, Schedule};
use crate::cost::Costs;
use crate::event::{Event, FinishReason, Usage};
use crate::lane::Lane;
use crate::launch::LaunchRecord;
use crate::load::Load;
use crate::memory::Memory;
use crate::request::{InvalidRequest, MemoryLimits, Request, RequestId, RequestLimits};
use crate::sequence::Sequence;
use crate::shared::{Buffers, Shared};
use crate::waiting::Waiting;

/// Why a request was not accepted. Nothing of it stays behind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It can never be served.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// It can never be served here: an engine with more memory may hold it.
    #[error(transparent)]
    TooLarge(InvalidRequest),
    /// It could be served later.
    #[error("the queue is full: {limit} requests wait already, try again later")]
    QueueFull {
        /// The configured limit.
        limit: usize,
    },
}

/// Serves many sequences on one model.
pub struct Engine<R: Runner> {
    shared: Shared<R>,
    waiting: Waiting,
    /// Requests that came with all their tokens: the next tick says so.
    complete: Vec<(RequestId, FinishReason, Usage)>,
    /// As many as it takes to keep the model busy.
    batches: Vec<Batch>,
    /// Batches by when a launch of theirs was last started or collected, that longest ago first.
    order: Vec<usize>,
    /// Whether launches run ahead of what is known of the last ones; then there is one batch.
    runs_ahead: bool,
    /// Whether a batch waits for K/V blocks.
    lacks_blocks: bool,
    /// Requests accepted so far.
    arrivals: u64,
}

/// Where a lane is.
#[derive(Debug, Clone, Copy)]
struct Place {
    batch: usize,
    lane: usize,
}

impl<R: Runner> Engine<R> {
    /// An engine with all its memory.
    pub fn new(
        mut runner: R,
        config: EngineConfig,
        clock: Box<dyn Clock>,
    ) -> Result<Self, EngineConfigError> {
        config.validate(runner.config(), runner.arithmetic().kv())?;
        runner.allocate(capacity(&config, &runner));
        Ok(Self::assemble(runner, config, clock))
    }

    /// An idle engine's model under another configuration; in the same memory, where that asks for as much. Nothing else
    /// stays: counters, measured costs and kept prompts are those of a new engine.
    pub fn reconfigure(self, config: EngineConfig) -> Result<Self, EngineConfigError> {
        assert!(self.is_idle(), "an engine is reconfigured while it serves");
        let Shared { mut runner, config: before, clock, .. } = self.shared;
        config.validate(runner.config(), runner.arithmetic().kv())?;
        let asked = capacity(&config, &runner);
        if asked != capacity(&before, &runner) {
            runner.allocate(asked);
        }
        Ok(Self::assemble(runner, config, clock))
    }

    fn assemble(runner: R, config: EngineConfig, clock: Box<dyn Clock>) -> Self {
        let capacity = capacity(&config, &runner);
        // The schedules that are there for comparison know all rows that there are.
        let (batches, runs_ahead) = match config.schedule {
            Schedule::Depth => (runner.launches_under_way(), runner.runs_ahead()),
            Schedule::Lockstep | Schedule::Homogeneous => (1, false),
        };
        Self {
            waiting: Waiting::default(),
            complete: Vec::new(),
            batches: (0..batches).map(|_| Batch::new(&config, capacity.rows, runs_ahead, &runner)).collect(),
            order: (0..batches).collect(),
            runs_ahead,
            lacks_blocks: false,
            arrivals: 0,
            shared: Shared {
                memory: Memory::new(&config, capacity.blocks, capacity.latents),
                costs: Costs::default(),
                counters: Load::default(),
                // A tick collects the core of every batch and one coda at most, each with what came before or after it.
                launches: Vec::with_capacity(2 * batches + 2),
                buffers: Buffers::new(capacity, runner.config().hidden),
                runner,
                config,
                clock,
            },
        }
    }

    /// What requests are checked against.
    pub fn limits(&self) -> RequestLimits<'_> {
        RequestLimits { model: self.shared.runner.config(), max_depth: self.shared.config.max_depth }
    }

    /// Accepts a request, or says why not. Its events come from later ticks under `id`, which must not be in use.
    pub fn submit(&mut self, id: RequestId, request: Request) -> Result<(), SubmitError> {
        let Shared { runner, config, clock, memory, .. } = &self.shared;
        request.validate(self.limits())?;
        if let Some(reason) = request.end_of_emitted(&runner.config().stop_tokens) {
            let sequence = Sequence::new(id, request, self.arrivals, clock.now());
            self.complete.push((id, reason, sequence.usage()));
            return Ok(());
        }
        let limits = MemoryLimits { blocks: memory.blocks.total(), max_prompt: config.prefill_positions };
        request.validate_memory(limits).map_err(SubmitError::TooLarge)?;
        if self.waiting.len() >= config.max_waiting {
            return Err(SubmitError::QueueFull { limit: config.max_waiting });
        }
        self.arrivals += 1;
        self.waiting.push(Sequence::new(id, request, self.arrivals, clock.now()));
        Ok(())
    }

    /// Forgets a request and frees all it holds: at once, or where a launch with it is under way, and launches do not run ahead, once
    /// that is done. One that is unknown or over is left alone.
    pub fn cancel(&mut self, id: RequestId) {
        self.waiting.remove(id);
        self.complete.retain(|(complete, ..)| *complete != id);
        for batch in &mut self.batches {
            if let Some(lane) = batch.position(id) {
                batch.end(lane, &mut self.shared.memory);
            }
        }
    }

    /// Whether nothing runs, nothing waits, and no launch is under way.
    pub fn is_idle(&self) -> bool {
        let is_done = self.batches.iter().all(|batch| batch.lanes.is_empty() && batch.under_way() == 0);
        is_done && self.waiting.is_empty() && self.complete.is_empty()
    }

    /// Advances rows by one core iteration and appends what came of them to `events`.
    ///
    /// Every batch that has no launch under way starts one; then launches are collected until one of the batches is free
    /// again. A single batch does all of that in one tick: prelude, core, coda. Where launches run ahead, those of the last tick are
    /// collected after those of this one have started.
    pub fn tick(&mut self, events: &mut Vec<Event>) {
        self.shared.launches.clear();
        let complete = self.complete.drain(..);
        events.extend(complete.map(|(id, reason, usage)| Event::Finished(id, reason, usage)));
        self.end_late(events);
        self.level();
        self.admit();
        self.launch(events);
        if self.lanes() == 0 {
            assert!(self.shared.memory.is_whole(), "memory leaked from lanes that are gone");
        }
    }

    /// What was collected in the last tick.
    pub fn launches(&self) -> &[LaunchRecord] {
        &self.shared.launches
    }

    /// How busy the engine is.
    pub fn load(&self) -> Load {
        let Shared { memory, counters, .. } = &self.shared;
        let waiting = self.waiting.iter().map(|sequence| sequence.owed_from(0));
        let running = || self.batches.iter().flat_map(|batch| &batch.lanes).filter(|lane| !lane.is_over);
        Load {
            running: running().count(),
            waiting: self.waiting.len(),
            rows: memory.latents.used(),
            blocks_used: memory.blocks.used(),
            blocks_cached: memory.blocks.cached(),
            blocks_total: memory.blocks.total(),
            queued_core_iterations: waiting.chain(running().map(Lane::owed_core_iterations)).sum(),
            ..counters.clone()
        }
    }

    /// Ends requests whose deadline has passed.
    fn end_late(&mut self, events: &mut Vec<Event>) {
        let now = self.shared.clock.now();
        while let Some(sequence) = self.waiting.pop_late(now) {
            events.push(Event::Finished(sequence.id, FinishReason::Timeout, sequence.usage()));
        }
        for batch in &mut self.batches {
            let late = |lane: &Lane| !lane.is_over && lane.sequence.is_late(now);
            while let Some(lane) = batch.lanes.iter().position(late) {
                let sequence = &batch.lanes[lane].sequence;
                events.push(Event::Finished(sequence.id, FinishReason::Timeout, sequence.usage()));
                batch.end(lane, &mut self.shared.memory);
            }
        }
    }

    /// Opens lanes for waiting sequences in their turn, as long as the next one fits; one of lower priority makes room.
    fn admit(&mut self) {
        // What comes free is for lanes that run.
        if self.lacks_blocks {
            return;
        }
        while let Some(priority) = self.waiting.first().map(|sequence| sequence.request.priority) {
            if self.open_first() {
                continue;
            }
            match self.last_free_lane().filter(|&place| self.lane(place).sequence.request.priority < priority)
            {
                Some(place) => self.preempt(place),
                None => return,
            }
        }
    }

    /// Opens a lane for the first waiting sequence, if there is memory.
    fn open_first(&mut self) -> bool {
        let (grouping, is_first, batch) = (self.shared.grouping(), self.lanes() == 0, self.smallest_batch());
        let Shared { runner, memory, counters, .. } = &mut self.shared;
        let place = self.waiting.first().and_then(|first| memory.place(first, grouping, is_first));
        let Some(place) = place else { return false };
        let sequence = self.waiting.pop_first().expect("the first was placed");
        if sequence.generated() == 0 && sequence.prefix_granularity(grouping.segment).is_some() {
            counters.prefix_query_positions_total += sequence.request.prompt.len() as u64;
            counters.prefix_hit_positions_total += place.reused as u64;
        }
        runner.open(place.table as u32, &memory.tables[place.table]);
        self.batches[batch].lanes.push(Lane::open(sequence, place, grouping));
        true
    }

    /// Lanes that are open.
    fn lanes(&self) -> usize {
        self.batches.iter().map(|batch| batch.lanes.len()).sum()
    }

    /// Takes a lane away; its sequence waits to be replayed.
    fn preempt(&mut self, Place { batch, lane }: Place) {
        let Shared { memory, counters, .. } = &mut self.shared;
        counters.preemptions_total += 1;
        self.waiting.push(memory.close(self.batches[batch].remove(lane)));
    }
}

/// The memory that limits ask for with this runner.
fn capacity(config: &EngineConfig, runner: &impl Runner) -> Capacity {
    config.capacity(runner.config(), runner.arithmetic().kv())
}
