//! Lanes that share their launches, and those launches of theirs that are under way.
//!
//! Here: what is started, and what becomes of rows after the core. What becomes of them behind the coda is in [`apply`].

mod apply;
mod departure;
mod guesses;
mod under_way;

use std::collections::VecDeque;

use windlass_kernels::{Draw, Draws, LogitChange, Stop};
use windlass_model::latent::fill_initial_latent;
use windlass_model::{Part, Runner, Wanted};

use crate::config::EngineConfig;
use crate::drafting::Drafting;
use crate::exit::Verdict;
use crate::lane::{Lane, Progress, Span};
use crate::launch::Phase;
use crate::launch_rows::LaunchRows;
use crate::memory::{MARGIN, Memory};
use crate::request::RequestId;
use crate::row::RowState;
use crate::scheduler::Scheduler;
use crate::sequence::Sequence;
use crate::shared::{Buffers, Shared};
use departure::{Departure, Wants};
use under_way::{Entered, Flight, UnderWay, move_up};

/// Lanes that share their launches. One launch of a batch is under way at a time, of as many batches as it takes to keep the
/// model busy (pipelines call them micro-batches). While it is lanes may join, and none leaves.
///
/// Where the runner runs ahead there is one batch, and each tick starts its launches before it collects those of the last: rows go
/// on as if none stopped by the way its latent changes. One that does has changed nothing by what it took part in meanwhile. Since
/// launches run in the order of their start, lanes may leave at any time: who has their memory next writes it later.
pub(crate) struct Batch {
    pub(crate) lanes: Vec<Lane>,
    scheduler: Scheduler,
    drafting: Drafting,
    /// Most drafts at a time.
    most_drafts: usize,
    runs_ahead: bool,
    /// In the order of their start.
    under_way: VecDeque<UnderWay>,
    /// Launches that were collected, for their memory.
    spare: Vec<UnderWay>,
    /// Rows of the core launch.
    plan: Vec<Span>,
    /// Those of them that go through the prelude first.
    entering: Vec<Span>,
    /// By what each row of the core launch stops.
    stops: Vec<Stop>,
    /// Rows of the next coda launch.
    departures: Vec<Departure>,
    /// Rows of the coda launch that need logits.
    wanted: Vec<u32>,
    /// Rows of the coda launch that need the most likely token alone.
    greedy: Vec<u32>,
    /// Rows of the coda launch that need a drawn token, how each is drawn, and what that changes of their logits.
    drawn: Vec<u32>,
    draws: Vec<Draw>,
    changes: Vec<LogitChange>,
    /// Whether tokens can be drawn where the logits are.
    can_draw: bool,
    rows: LaunchRows,
}

impl Batch {
    /// With room for launches of so many rows, so that none allocates.
    pub(crate) fn new<R: Runner>(config: &EngineConfig, rows: usize, runs_ahead: bool, runner: &R) -> Self {
        /// A core and a coda of the last tick, and this one's core.
        const MOST_UNDER_WAY: usize = 3;
        Self {
            lanes: Vec::with_capacity(config.max_lanes),
            scheduler: Scheduler::new(config),
            drafting: Drafting::new(config),
            most_drafts: config.max_rows / runner.launches_under_way(),
            runs_ahead,
            under_way: VecDeque::with_capacity(MOST_UNDER_WAY),
            spare: (0..MOST_UNDER_WAY).map(|_| UnderWay::new(rows)).collect(),
            plan: Vec::with_capacity(rows),
            entering: Vec::with_capacity(rows),
            stops: Vec::with_capacity(rows),
            departures: Vec::with_capacity(rows),
            wanted: Vec::with_capacity(rows),
            greedy: Vec::with_capacity(rows),
            drawn: Vec::with_capacity(rows),
            draws: Vec::with_capacity(rows),
            changes: Vec::new(),
            can_draw: runner.draws(),
            rows: LaunchRows::new(rows),
        }
    }

    /// How many launches are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Which part the launch is of that is collected next, if there is one.
    pub(crate) fn next_part(&self) -> Option<Part> {
        self.under_way.front().map(|launch| launch.part)
    }

    /// Whether a launch may be started, and lanes may leave.
    pub(crate) fn is_free(&self) -> bool {
        self.runs_ahead || self.under_way.is_empty()
    }

    /// Where the lane of a request is that somebody waits for.
    pub(crate) fn position(&self, id: RequestId) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.sequence.id == id && !lane.is_over)
    }

    /// Ends a lane: now, or once it may leave.
    pub(crate) fn end(&mut self, lane: usize, memory: &mut Memory) {
        self.lanes[lane].is_over = true;
        self.close_ended(memory);
    }

    /// Takes a lane out, which may leave.
    pub(crate) fn remove(&mut self, lane: usize) -> Lane {
        self.under_way.iter_mut().for_each(|launch| launch.remove(lane));
        self.departures.retain_mut(|departure| {
            move_up(&mut departure.lane, lane);
            departure.lane.is_some()
        });
        self.lanes.remove(lane)
    }

    fn close_ended(&mut self, memory: &mut Memory) {
        while self.is_free()
            && let Some(lane) = self.lanes.iter().position(|lane| lane.is_over)
        {
            memory.close(self.remove(lane));
        }
    }

    /// A new turn: other lanes are first.
    pub(crate) fn next_turn(&mut self) {
        self.scheduler.next_turn();
    }

    /// Plans the next core launch; returns whether there are enough K/V blocks for it. Drafts take part where some are left.
    pub(crate) fn plan(&mut self, Memory { tables, blocks, .. }: &Memory) -> bool {
        let Self { lanes, scheduler, plan, .. } = self;
        scheduler.plan(lanes, plan);
        let missing = |span: &Span| {
            let lane = &lanes[span.lane];
            lane.blocks_missing(*span, &tables[lane.table])
        };
        let Some(mut left) = blocks.available().checked_sub(plan.iter().map(missing).sum()) else {
            return false;
        };
        left = left.saturating_sub(blocks.total() / MARGIN);
        scheduler.plan_drafts(lanes, plan, |span| {
            let rest = left.checked_sub(missing(span));
            left = rest.unwrap_or(left);
            rest.is_some()
        });
        true
    }

    /// Starts what is planned: prelude for the rows that enter, one core iteration for all that take another. Returns whether there
    /// are any, and so a core launch was started.
    pub(crate) fn start<R: Runner>(&mut self, shared: &mut Shared<R>) -> bool {
        let Memory { tables, blocks, .. } = &mut shared.memory;
        for span in &self.plan {
            let lane = &self.lanes[span.lane];
            lane.prepare(*span, &mut tables[lane.table], blocks);
        }
        let mut launch = self.spare.pop().expect("memory for every launch there can be");
        launch.part = Part::Core;
        launch.decodes = self.plan.iter().all(|span| self.lanes[span.lane].decodes());
        launch.entered = self.enter(shared);
        launch.start = shared.clock.now();
        self.rows.core(&self.lanes, &self.plan);
        let has_rows = self.rows.len() > 0;
        if has_rows {
            self.note_stops();
            shared.counters.count_core_rows(self.rows.len());
            shared.runner.start_core(self.rows.launch(&shared.memory.tables), &self.stops);
        }
        self.advance(&mut launch.flights);
        if has_rows {
            self.under_way.push_back(launch);
        } else {
            self.spare.push(launch);
        }
        has_rows
    }

    /// Prelude for the rows that enter, if there are any.
    fn enter<R: Runner>(&mut self, shared: &mut Shared<R>) -> Option<Entered> {
        let Self { lanes, plan, entering, rows, .. } = self;
        entering.clear();
        entering.extend(plan.iter().filter(|span| lanes[span.lane].depth_of(span.from) == 0));
        if entering.is_empty() {
            return None;
        }
        let start = shared.clock.now();
        let hidden = shared.runner.config().hidden;
        let Buffers { tokens, initial, .. } = &mut shared.buffers;
        tokens.clear();
        initial.clear();
        for span in &*entering {
            let lane = &lanes[span.lane];
            let Sequence { request, .. } = &lane.sequence;
            tokens.extend(span.positions().map(|position| lane.token(position)));
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
        Some(Entered { rows: rows.len(), start, end: shared.clock.now() })
    }

    /// By what each row of the core launch stops; nothing where none does.
    fn note_stops(&mut self) {
        let Self { lanes, plan, stops, .. } = self;
        stops.clear();
        for &span in &*plan {
            let lane = &lanes[span.lane];
            stops.extend(lane.iterating(span).map(|position| lane.stop(position)));
        }
        if stops.iter().all(|stop| *stop == Stop::Never) {
            stops.clear();
        }
    }

    /// Counts the iteration that was started, and notes who goes through the coda behind it, as far as that is known.
    fn advance(&mut self, flights: &mut Vec<Flight>) {
        let Self { lanes, plan, departures, can_draw, .. } = self;
        flights.clear();
        for &span in &*plan {
            let lane = &mut lanes[span.lane];
            let rows = lane.iterating(span).count();
            let generated = lane.sequence.generated();
            let token_from = Wants::for_token(&lane.sequence.request, *can_draw);
            let (from, count) = (span.from, span.count);
            let mut depart = |wants| {
                departures.push(Departure { lane: Some(span.lane), from, count, wants, is_guess: false });
            };
            let settled = lane.sequence.settled();
            let depth = match &mut lane.progress {
                Progress::Settled { group, last_depth, depth, next } => {
                    *next += span.count;
                    if *depth + 1 == *last_depth {
                        let is_last = generated == 0 && *next == lane.sequence.request.prompt.len();
                        depart(if is_last { token_from } else { Wants::Nothing });
                    } else if *next == group.end {
                        (*depth, *next) = (*depth + 1, group.start);
                    }
                    None
                }
                Progress::Decode(rows) => {
                    let row = &mut rows[from - settled];
                    row.depth += 1;
                    match row.exit.at(row.depth) {
                        Verdict::Iterate => {}
                        Verdict::Probe => {
                            row.state = RowState::Probed;
                            depart(Wants::Logits);
                        }
                        Verdict::Leave => row.state = RowState::Waiting(0),
                    }
                    Some(row.depth)
                }
            };
            flights.push(Flight { lane: Some(span.lane), position: from, rows, depth });
        }
    }

    /// Collects the core launch that was started first, which is done: rows stop by how their latents changed.
    pub(crate) fn collect_core<R: Runner>(&mut self, shared: &mut Shared<R>) {
        let launch = self.under_way.pop_front().expect("a core launch is under way");
        shared.runner.finish_core(&mut shared.buffers.changes);
        let busy = shared.runner.busy();
        if let Some(Entered { rows, start, end }) = launch.entered {
            let busy = busy.map_or(end - start, |busy| busy.prelude);
            shared.record(Phase::Prelude, rows, launch.decodes, start, Some(busy));
        }
        let rows = launch.flights.iter().map(|flight| flight.rows).sum();
        let busy = busy.map(|busy| busy.launch);
        shared.record(Phase::Core, rows, launch.decodes, launch.start, busy);
        let mut changes = shared.buffers.changes.iter();
        for flight in &launch.flights {
            let change = changes.by_ref().take(flight.rows).last();
            if let (Some(index), Some(depth), Some(change)) = (flight.lane, flight.depth, change) {
                let (lane, position) = (&mut self.lanes[index], flight.position);
                let table = &mut shared.memory.tables[lane.table];
                let shown = table.top_slot(position);
                if lane.stops_at(position, depth, change, table) {
                    if table.top_slot(position) < shown {
                        shared.runner.lower(lane.table as u32, position, table.top_slot(position));
                    }
                    self.under_way.iter_mut().for_each(|launch| launch.forget(index, position..=position));
                }
            }
        }
        self.spare.push(launch);
    }

    /// Starts the coda for the rows that go through it now. Where that are none, lanes that are over leave.
    pub(crate) fn depart<R: Runner>(&mut self, shared: &mut Shared<R>) {
        let guesses_from = self.drafting.guesses_from(&self.lanes, self.rows.len(), &shared.costs);
        self.leave(guesses_from.is_some(), shared);
        if let Some(depth) = guesses_from {
            self.guess(depth);
        }
        if !self.departures.is_empty() {
            self.start_coda(shared);
        }
        self.close_ended(&mut shared.memory);
    }

    /// Adds the rows that waited to leave to the departures, if they wait no longer. `others_depart`: some rows go through the coda
    /// anyway.
    fn leave<R: Runner>(&mut self, others_depart: bool, shared: &Shared<R>) {
        let Self { lanes, scheduler, departures, can_draw, .. } = self;
        let leave = scheduler.leave(lanes, others_depart || !departures.is_empty(), &shared.costs);
        for (index, lane) in lanes.iter_mut().enumerate() {
            let (from, wants) =
                (lane.sequence.settled(), Wants::for_token(&lane.sequence.request, *can_draw));
            if let Some(row) = lane.rows_mut().first_mut()
                && let RowState::Waiting(waited) = &mut row.state
            {
                *waited += 1;
                if leave {
                    row.state = RowState::Departed;
                    departures.push(Departure { lane: Some(index), from, count: 1, wants, is_guess: false });
                }
            }
        }
    }

    /// Starts the coda for the departing rows.
    fn start_coda<R: Runner>(&mut self, shared: &mut Shared<R>) {
        let Self { lanes, departures, wanted, greedy, drawn, draws, changes, rows, .. } = self;
        let start = shared.clock.now();
        for list in [&mut *wanted, greedy, drawn] {
            list.clear();
        }
        draws.clear();
        changes.clear();
        let draws_any = departures.iter().any(|departure| departure.wants == Wants::Drawn);
        let mut count = 0;
        for departure in &mut *departures {
            count += departure.count as u32;
            // The most likely tokens are drawn along with others, where there are some, so that the head runs once.
            if departure.wants == Wants::MostLikely && draws_any {
                departure.wants = Wants::Drawn;
            }
            match departure.wants {
                Wants::Nothing => {}
                Wants::MostLikely => greedy.push(count - 1),
                Wants::Logits => wanted.push(count - 1),
                Wants::Drawn => {
                    drawn.push(count - 1);
                    let sequence = &lanes[departure.span().lane].sequence;
                    draws.push(sequence.draw_at(departure.from + departure.count, changes));
                }
            }
        }
        rows.ends(lanes, departures.iter().map(Departure::span));
        shared.counters.coda_rows_total += rows.len() as u64;
        let draws = Draws { rows: draws, changes };
        let head = Wanted { logits: wanted, most_likely: greedy, drawn, draws };
        shared.runner.start_coda(rows.launch(&shared.memory.tables), head);
        let mut launch = self.spare.pop().expect("memory for every launch there can be");
        launch.flights.clear();
        launch.departures.clear();
        launch.departures.append(departures);
        let is_decoding = |departure: &Departure| departure.lane.is_some_and(|lane| lanes[lane].decodes());
        let decodes = launch.departures.iter().all(is_decoding);
        self.under_way.push_back(UnderWay { part: Part::Coda, start, entered: None, decodes, ..launch });
    }
}
