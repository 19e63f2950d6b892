//! Lanes that share their launches, and the launch of theirs that is under way.
//!
//! Here: what is started, and what becomes of rows after the core. What becomes of them behind the coda is in [`apply`].

mod apply;

use std::time::Duration;

use windlass_kernels::KvTable;
use windlass_model::latent::fill_initial_latent;
use windlass_model::{Part, Runner, Wanted};

use crate::config::EngineConfig;
use crate::exit::Verdict;
use crate::lane::{Lane, Progress, Span};
use crate::launch::Phase;
use crate::launch_rows::LaunchRows;
use crate::memory::Memory;
use crate::request::{Request, RequestId};
use crate::scheduler::Scheduler;
use crate::sequence::Sequence;
use crate::shared::{Buffers, Shared};

/// Lanes that share their launches. One launch of a batch is under way at a time, of as many batches as it takes to keep the
/// model busy (pipelines call them micro-batches).
///
/// While a launch is under way lanes may join, and none leaves: plan and departures count them.
pub(crate) struct Batch {
    pub(crate) lanes: Vec<Lane>,
    scheduler: Scheduler,
    under_way: Option<UnderWay>,
    /// Rows of the core launch.
    plan: Vec<Span>,
    /// Those of them that go through the prelude first.
    entering: Vec<Span>,
    /// Rows of the coda launch.
    departures: Vec<Departure>,
    /// Rows of the coda launch that need logits.
    wanted: Vec<u32>,
    /// Rows of the coda launch that need the most likely token alone.
    greedy: Vec<u32>,
    rows: LaunchRows,
}

/// A launch that was started and not collected.
#[derive(Debug, Clone, Copy)]
struct UnderWay {
    part: Part,
    start: Duration,
    /// When rows entered before it, and when the prelude returned.
    entered: Option<(Duration, Duration)>,
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

impl Batch {
    /// With room for launches of so many rows, so that none allocates.
    pub(crate) fn new(config: &EngineConfig, rows: usize) -> Self {
        let lanes = config.max_lanes;
        Self {
            lanes: Vec::with_capacity(lanes),
            scheduler: Scheduler::new(config),
            under_way: None,
            plan: Vec::with_capacity(lanes),
            entering: Vec::with_capacity(lanes),
            departures: Vec::with_capacity(lanes),
            wanted: Vec::with_capacity(lanes),
            greedy: Vec::with_capacity(lanes),
            rows: LaunchRows::new(rows),
        }
    }

    /// Which part a launch of this batch is under way in, if one is.
    pub(crate) fn under_way(&self) -> Option<Part> {
        self.under_way.map(|under_way| under_way.part)
    }

    /// Where the lane of a request is that somebody waits for.
    pub(crate) fn position(&self, id: RequestId) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.sequence.id == id && !lane.is_over)
    }

    /// Ends a lane: now, or where a launch is under way once that is collected.
    pub(crate) fn end(&mut self, lane: usize, memory: &mut Memory) {
        self.lanes[lane].is_over = true;
        if self.under_way.is_none() {
            self.close_ended(memory);
        }
    }

    fn close_ended(&mut self, memory: &mut Memory) {
        while let Some(lane) = self.lanes.iter().position(|lane| lane.is_over) {
            memory.close(self.lanes.remove(lane));
        }
    }

    /// A new turn: other lanes are first.
    pub(crate) fn next_turn(&mut self) {
        self.scheduler.next_turn();
    }

    /// Plans the next core launch; returns how many K/V blocks it takes.
    pub(crate) fn plan(&mut self, tables: &[KvTable]) -> usize {
        self.scheduler.plan(&self.lanes, &mut self.plan);
        let missing = |span: &Span| {
            let lane = &self.lanes[span.lane];
            lane.blocks_missing(*span, &tables[lane.table])
        };
        self.plan.iter().map(missing).sum()
    }

    /// Starts what is planned: prelude for the rows that enter, one core iteration for all. Where nothing is, rows that waited
    /// to leave may do so.
    pub(crate) fn start<R: Runner>(&mut self, shared: &mut Shared<R>) {
        let Memory { tables, blocks, .. } = &mut shared.memory;
        for span in &self.plan {
            let lane = &self.lanes[span.lane];
            lane.prepare(*span, &mut tables[lane.table], blocks);
        }
        let entered = self.enter(shared);
        self.rows.core(&self.lanes, &self.plan);
        if self.rows.len() == 0 {
            shared.buffers.changes.clear();
            return self.advance(shared);
        }
        let start = shared.clock.now();
        shared.counters.count_core_rows(self.rows.len());
        shared.runner.start_core(self.rows.launch(&shared.memory.tables));
        self.under_way = Some(UnderWay { part: Part::Core, start, entered });
    }

    /// Prelude for the rows that enter; when it began and returned, if there are any.
    fn enter<R: Runner>(&mut self, shared: &mut Shared<R>) -> Option<(Duration, Duration)> {
        let Self { lanes, plan, entering, rows, .. } = self;
        entering.clear();
        entering.extend(plan.iter().filter(|span| lanes[span.lane].depth() == 0));
        if entering.is_empty() {
            return None;
        }
        let start = shared.clock.now();
        let hidden = shared.runner.config().hidden;
        let Buffers { tokens, initial, .. } = &mut shared.buffers;
        tokens.clear();
        initial.clear();
        for span in &*entering {
            let Sequence { tokens: all, request, .. } = &lanes[span.lane].sequence;
            tokens.extend_from_slice(&all[span.positions()]);
            for position in span.positions() {
                let from = initial.len();
                initial.resize(from + hidden, 0.0);
                let (seed, scale) = (request.latent_seed, request.init_scale);
                fill_initial_latent(seed, position as u32, scale, &mut initial[from..]);
            }
        }
        rows.ends(lanes, entering.iter().copied());
        shared.counters.prelude_rows_total += rows.len() as u64;
        shared.runner.prelude(tokens, initial, rows.launch(&shared.memory.tables));
        Some((start, shared.clock.now()))
    }

    /// Collects the core launch, which is done, and starts the coda for rows that go through it now.
    pub(crate) fn collect_core<R: Runner>(&mut self, shared: &mut Shared<R>) {
        let UnderWay { start, entered, .. } = self.under_way.take().expect("a core launch is under way");
        shared.runner.finish_core(&mut shared.buffers.changes);
        let busy = shared.runner.busy();
        if let Some((start, end)) = entered {
            let took = busy.map_or(end - start, |busy| busy.prelude);
            let rows = self.entering.iter().map(|span| span.count).sum();
            shared.record(Phase::Prelude, rows, start, Some(took));
        }
        shared.record(Phase::Core, shared.buffers.changes.len(), start, busy.map(|busy| busy.launch));
        self.advance(shared);
        if self.under_way.is_none() {
            self.close_ended(&mut shared.memory);
        }
    }

    /// Counts the iteration, decides who goes through the coda now, and starts it for them.
    fn advance<R: Runner>(&mut self, shared: &mut Shared<R>) {
        let Self { lanes, plan, departures, .. } = self;
        departures.clear();
        let mut changes = shared.buffers.changes.iter();
        for &span in &*plan {
            let lane = &mut lanes[span.lane];
            let change = changes.by_ref().take(lane.iterating(span).count()).last();
            let generated = lane.sequence.generated();
            let token_from = Wants::for_token(&lane.sequence.request);
            match &mut lane.progress {
                Progress::Settled { group, last_depth, depth, next } => {
                    *next += span.count;
                    if *depth + 1 == *last_depth {
                        let is_last = generated == 0 && *next == lane.sequence.request.prompt.len();
                        let wants = if is_last { token_from } else { Wants::Nothing };
                        departures.push(Departure { span, wants });
                    } else if *next == group.end {
                        (*depth, *next) = (*depth + 1, group.start);
                    }
                }
                Progress::Decode { depth, exit, leaving } => {
                    *depth += 1;
                    match exit.after_core(*depth, change.expect("a decoding lane has a row")) {
                        Verdict::Iterate => {}
                        Verdict::Probe => departures.push(Departure { span, wants: Wants::Logits }),
                        Verdict::Leave => *leaving = Some(0),
                    }
                }
            }
        }
        self.leave(shared);
        if !self.departures.is_empty() {
            self.start_coda(shared);
        }
    }

    /// Adds the rows that waited to leave to the departures, if they wait no longer.
    fn leave<R: Runner>(&mut self, shared: &Shared<R>) {
        let Self { lanes, scheduler, departures, .. } = self;
        let leave = scheduler.leave(lanes, !departures.is_empty(), &shared.costs);
        for (index, lane) in lanes.iter_mut().enumerate() {
            let (from, wants) = (lane.sequence.settled(), Wants::for_token(&lane.sequence.request));
            if let Progress::Decode { leaving: Some(waited), .. } = &mut lane.progress {
                *waited += 1;
                if leave {
                    let span = Span { lane: index, from, count: 1 };
                    departures.push(Departure { span, wants });
                }
            }
        }
    }

    /// Starts the coda for the departing rows.
    fn start_coda<R: Runner>(&mut self, shared: &mut Shared<R>) {
        let Self { lanes, departures, wanted, greedy, rows, .. } = self;
        let start = shared.clock.now();
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
        rows.ends(lanes, departures.iter().map(|departure| departure.span));
        shared.counters.coda_rows_total += rows.len() as u64;
        let head = Wanted { logits: wanted, most_likely: greedy };
        shared.runner.start_coda(rows.launch(&shared.memory.tables), head);
        self.under_way = Some(UnderWay { part: Part::Coda, start, entered: None });
    }
}
