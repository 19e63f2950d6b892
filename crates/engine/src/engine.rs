//! The engine: plan, run, apply, tick after tick.

use std::time::Duration;

use windlass_kernels::{Backend, LatentChange};
use windlass_model::latent::fill_initial_latent;
use windlass_model::{Capacity, Network, Workspace};

use crate::clock::Clock;
use crate::config::{EngineConfig, EngineConfigError};
use crate::cost::Costs;
use crate::event::{Event, FinishReason, TokenOutput};
use crate::exit::Verdict;
use crate::lane::{Grouping, Lane, Span, Stage};
use crate::launch::{LaunchRecord, Phase};
use crate::launch_rows::LaunchRows;
use crate::load::Load;
use crate::memory::Memory;
use crate::request::{InvalidRequest, Request, RequestId, RequestLimits};
use crate::sampler::SamplerScratch;
use crate::scheduler::Scheduler;
use crate::sequence::Sequence;
use crate::waiting::Waiting;

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

/// Serves many sequences on one network.
pub struct Engine<B: Backend> {
    network: Network<B>,
    workspace: Workspace<B>,
    config: EngineConfig,
    clock: Box<dyn Clock>,
    scheduler: Scheduler,
    costs: Costs,
    waiting: Waiting,
    /// In order of admission.
    lanes: Vec<Lane>,
    memory: Memory,
    /// Requests accepted so far.
    arrivals: u64,
    counters: Load,
    launches: Vec<LaunchRecord>,
    work: Work,
}

/// What one tick hands from step to step; kept between ticks for its memory alone.
#[derive(Debug, Default)]
struct Work {
    plan: Vec<Span>,
    entering: Vec<Span>,
    departures: Vec<Departure>,
    rows: LaunchRows,
    tokens: Vec<u32>,
    initial: Vec<f32>,
    changes: Vec<LatentChange>,
    /// Rows of the coda launch that need logits, and those logits.
    wanted: Vec<u32>,
    logits: Vec<f32>,
    /// Rows of the coda launch that need the most likely token alone, and those tokens.
    greedy: Vec<u32>,
    most_likely: Vec<u32>,
    sampler: SamplerScratch,
    finished: Vec<RequestId>,
}

/// Rows on their way through the coda.
#[derive(Debug, Clone, Copy)]
struct Departure {
    span: Span,
    /// What the span's last row needs; other rows only leave coda K/V behind.
    wants: Wants,
}

/// What a row needs of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    Nothing,
    /// The most likely token: its request looks at nothing else.
    MostLikely,
    Logits,
}

impl Wants {
    /// What the next token of a request is drawn from.
    fn for_token(request: &Request) -> Self {
        let looks_at_logits = request.logprobs.is_some() || request.report_logits;
        if request.sampling.is_plainly_greedy() && !looks_at_logits { Self::MostLikely } else { Self::Logits }
    }
}

impl<B: Backend> Engine<B> {
    /// An engine with all its memory.
    pub fn new(
        network: Network<B>,
        config: EngineConfig,
        clock: Box<dyn Clock>,
    ) -> Result<Self, EngineConfigError> {
        config.validate(network.config())?;
        let workspace = network.workspace(config.capacity(network.config()));
        Ok(Self::assemble(network, workspace, config, clock))
    }

    /// An idle engine's network under another configuration; in the same memory, where that asks for as much. Nothing else
    /// stays: counters, measured costs and kept prompts are those of a new engine.
    pub fn reconfigure(self, config: EngineConfig) -> Result<Self, EngineConfigError> {
        assert!(self.is_idle(), "an engine is reconfigured while it serves");
        config.validate(self.network.config())?;
        let Self { network, workspace, config: before, clock, .. } = self;
        let capacity = config.capacity(network.config());
        let workspace = if capacity == before.capacity(network.config()) {
            workspace
        } else {
            drop(workspace);
            network.workspace(capacity)
        };
        Ok(Self::assemble(network, workspace, config, clock))
    }

    fn assemble(
        network: Network<B>,
        workspace: Workspace<B>,
        config: EngineConfig,
        clock: Box<dyn Clock>,
    ) -> Self {
        let Capacity { latents, blocks, .. } = config.capacity(network.config());
        Self {
            scheduler: Scheduler::new(&config),
            costs: Costs::default(),
            waiting: Waiting::default(),
            lanes: Vec::with_capacity(config.max_lanes),
            memory: Memory::new(&config, blocks, latents),
            arrivals: 0,
            counters: Load::default(),
            launches: Vec::new(),
            work: Work::default(),
            network,
            workspace,
            config,
            clock,
        }
    }

    /// What requests are checked against.
    pub fn limits(&self) -> RequestLimits<'_> {
        RequestLimits {
            model: self.network.config(),
            max_depth: self.config.max_depth,
            max_prompt: self.config.prefill_positions,
        }
    }

    /// Accepts a request, or says why not. Its events come from later ticks under `id`, which must not be in use.
    pub fn submit(&mut self, id: RequestId, request: Request) -> Result<(), SubmitError> {
        request.validate(self.limits())?;
        let (needed, total) = (request.kv_blocks(), self.memory.blocks.total());
        if needed > total {
            let reason = format!(
                "prompt, max_tokens and depth need {needed} K/V blocks and there are {total}: ask for fewer tokens, \
                 a smaller depth or kv ring"
            );
            return Err(InvalidRequest::new("max_tokens", reason).into());
        }
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
        if let Some(index) = self.lanes.iter().position(|lane| lane.sequence.id == id) {
            self.close(index);
        }
    }

    /// Whether nothing runs and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.lanes.is_empty() && self.waiting.is_empty()
    }

    /// Advances every row in flight by one core iteration and appends what came of it to `events`.
    pub fn tick(&mut self, events: &mut Vec<Event>) {
        let mut work = std::mem::take(&mut self.work);
        self.launches.clear();
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

    /// Prelude for the rows that enter, then one core iteration for all.
    fn run_core(&mut self, work: &mut Work) {
        let Work { plan, entering, rows, tokens, initial, changes, .. } = work;
        let Memory { tables, blocks, .. } = &mut self.memory;
        for span in &*plan {
            let lane = &self.lanes[span.lane];
            lane.prepare(*span, &mut tables[lane.table], blocks);
        }
        entering.clear();
        entering.extend(plan.iter().filter(|span| self.lanes[span.lane].depth() == 0));
        if !entering.is_empty() {
            let start = self.clock.now();
            self.enter(entering, tokens, initial);
            rows.ends(&self.lanes, entering.iter().copied());
            self.counters.prelude_rows_total += rows.len() as u64;
            self.network.prelude(&mut self.workspace, tokens, initial, rows.launch(&self.memory.tables));
            self.record(Phase::Prelude, rows.len(), start);
        }
        rows.core(&self.lanes, plan);
        changes.clear();
        if rows.len() > 0 {
            let start = self.clock.now();
            self.counters.count_core_rows(rows.len());
            self.network.core(&mut self.workspace, rows.launch(&self.memory.tables), changes);
            self.record(Phase::Core, rows.len(), start);
        }
    }

    /// Tokens and initial latents of the rows that enter.
    fn enter(&self, entering: &[Span], tokens: &mut Vec<u32>, initial: &mut Vec<f32>) {
        let hidden = self.network.config().hidden;
        tokens.clear();
        initial.clear();
        for span in entering {
            let Sequence { tokens: all, request, .. } = &self.lanes[span.lane].sequence;
            tokens.extend_from_slice(&all[span.positions()]);
            for position in span.positions() {
                let from = initial.len();
                initial.resize(from + hidden, 0.0);
                let (seed, scale) = (request.latent_seed, request.init_scale);
                fill_initial_latent(seed, position as u32, scale, &mut initial[from..]);
            }
        }
    }

    /// Counts the iteration and decides who goes through the coda now.
    fn advance(&mut self, work: &mut Work) {
        let Work { plan, changes, departures, .. } = work;
        departures.clear();
        let mut changes = changes.iter();
        for &span in &*plan {
            let lane = &mut self.lanes[span.lane];
            let change = changes.by_ref().take(lane.iterating(span).count()).last();
            let generated = lane.sequence.generated();
            let token_from = Wants::for_token(&lane.sequence.request);
            match &mut lane.stage {
                Stage::Settled { group, last_depth, depth, next } => {
                    *next += span.count;
                    if *depth + 1 == *last_depth {
                        let is_last = generated == 0 && *next == lane.sequence.request.prompt.len();
                        let wants = if is_last { token_from } else { Wants::Nothing };
                        departures.push(Departure { span, wants });
                    } else if *next == group.end {
                        (*depth, *next) = (*depth + 1, group.start);
                    }
                }
                Stage::Decode { depth, exit, leaving } => {
                    *depth += 1;
                    match exit.after_core(*depth, change.expect("a decoding lane has a row")) {
                        Verdict::Iterate => {}
                        Verdict::Probe => departures.push(Departure { span, wants: Wants::Logits }),
                        Verdict::Leave => *leaving = Some(0),
                    }
                }
            }
        }
        let leave = self.scheduler.leave(&self.lanes, !departures.is_empty(), &self.costs);
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let (from, wants) = (lane.sequence.settled(), Wants::for_token(&lane.sequence.request));
            if let Stage::Decode { leaving: Some(waited), .. } = &mut lane.stage {
                *waited += 1;
                if leave {
                    let span = Span { lane: index, from, count: 1 };
                    departures.push(Departure { span, wants });
                }
            }
        }
    }

    /// Coda for the departing rows; logits, `[rows, vocabulary]`, or the most likely token for those that want them.
    fn run_coda(&mut self, work: &mut Work) {
        let Work { departures, rows, wanted, logits, greedy, most_likely, .. } = work;
        logits.clear();
        most_likely.clear();
        if departures.is_empty() {
            return;
        }
        let start = self.clock.now();
        wanted.clear();
        greedy.clear();
        let mut count = 0;
        for departure in &*departures {
            count += departure.span.count as u32;
            match departure.wants {
                Wants::Nothing => {}
                Wants::MostLikely => greedy.push(count - 1),
                Wants::Logits => wanted.push(count - 1),
            }
        }
        rows.ends(&self.lanes, departures.iter().map(|departure| departure.span));
        self.counters.coda_rows_total += rows.len() as u64;
        self.network.coda(&mut self.workspace, rows.launch(&self.memory.tables), wanted, logits);
        self.network.most_likely(&mut self.workspace, greedy, most_likely);
        self.record(Phase::Coda, rows.len(), start);
    }

    /// Settles probes, draws tokens, ends what is done.
    fn apply(&mut self, work: &mut Work, events: &mut Vec<Event>) {
        let Work { departures, logits, wanted, greedy, most_likely, sampler, finished, .. } = work;
        if departures.is_empty() {
            return;
        }
        let start = self.clock.now();
        let mut logits = logits.chunks_exact(self.network.config().vocabulary);
        let mut most_likely = most_likely.iter();
        finished.clear();
        for departure in &*departures {
            let index = departure.span.lane;
            let lane = &mut self.lanes[index];
            let output = match departure.wants {
                Wants::Nothing => None,
                Wants::MostLikely => {
                    let token = *most_likely.next().expect("a token per row that wants it");
                    Some(TokenOutput { token, ..TokenOutput::default() })
                }
                Wants::Logits => {
                    let logits = logits.next().expect("a row of logits per row that wants them");
                    lane.settle_probe(logits).then(|| lane.draw(logits, sampler))
                }
            };
            if let Some(output) = output {
                self.emit(index, output, events, finished);
            }
            self.finish_group(departure.span);
        }
        for id in finished.drain(..) {
            self.cancel(id);
        }
        self.record(Phase::Sample, wanted.len() + greedy.len(), start);
    }

    /// Goes on after the group that `span` is the end of, if it is. What is done of the prompt by then is kept for others.
    fn finish_group(&mut self, span: Span) {
        let grouping = self.grouping();
        let Memory { tables, blocks, latents, .. } = &mut self.memory;
        let lane = &mut self.lanes[span.lane];
        let Stage::Settled { group, .. } = &lane.stage else { return };
        if span.positions().end < group.end {
            return;
        }
        let Sequence { request, .. } = &lane.sequence;
        if group.contains(&(request.prompt.len() - 1))
            && let Some(granularity) = lane.sequence.prefix_granularity(grouping.segment)
        {
            blocks.keep(request, granularity, &tables[lane.table]);
        }
        lane.finish_group(latents, grouping);
    }

    /// Completes the lane's next token, tells of it, and goes on after it.
    fn emit(
        &mut self,
        index: usize,
        mut output: TokenOutput,
        events: &mut Vec<Event>,
        finished: &mut Vec<RequestId>,
    ) {
        let grouping = self.grouping();
        let lane = &mut self.lanes[index];
        (output.depth, output.exit_value, output.exit_values) = lane.exit_record();
        let request = &lane.sequence.request;
        output.is_stop = request.stop_tokens.contains(&output.token)
            || (!request.ignore_model_stops && self.network.config().stop_tokens.contains(&output.token));
        lane.push(output.token, output.depth, grouping);
        let sequence = &lane.sequence;
        let reason = if output.is_stop {
            Some(FinishReason::Stop)
        } else {
            (sequence.generated() == sequence.request.max_tokens).then_some(FinishReason::Length)
        };
        events.push(Event::Token(sequence.id, output));
        if let Some(reason) = reason {
            events.push(Event::Finished(sequence.id, reason, sequence.usage()));
            finished.push(sequence.id);
        }
    }

    fn close(&mut self, index: usize) -> Sequence {
        self.memory.close(self.lanes.remove(index))
    }

    fn grouping(&self) -> Grouping {
        Grouping {
            segment: self.config.prefill_segment,
            most: self.config.prefill_positions,
            vocabulary: self.network.config().vocabulary,
        }
    }

    /// Notes a launch that began at `start` and has just ended.
    fn record(&mut self, phase: Phase, rows: usize, start: Duration) {
        let launch = LaunchRecord { phase, rows: rows as u32, start, end: self.clock.now() };
        self.costs.observe(&launch);
        self.launches.push(launch);
    }
}
