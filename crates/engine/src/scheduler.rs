//! Which rows run in a tick. It reads lanes and decides; nothing else changes.

use std::cmp::Reverse;

use windlass_model::Depth;

use crate::coalesce::{Coalescer, Waiting};
use crate::config::{EngineConfig, Schedule};
use crate::cost::Costs;
use crate::lane::{Lane, Progress, Span};

/// Shares a tick's rows among lanes.
#[derive(Debug)]
pub(crate) struct Scheduler {
    schedule: Schedule,
    max_rows: usize,
    prefill_chunk: usize,
    coalescer: Coalescer,
    /// Grows every tick, so that lanes take turns at being first when not all fit.
    turn: usize,
    /// Working memory: lanes in the order in which they are asked.
    order: Vec<usize>,
}

impl Scheduler {
    pub(crate) fn new(config: &EngineConfig) -> Self {
        let EngineConfig { schedule, max_rows, prefill_chunk, coalesce, coalesce_limit, .. } = *config;
        let coalescer = Coalescer::new(coalesce, coalesce_limit);
        let order = Vec::with_capacity(config.max_lanes);
        Self { schedule, max_rows, prefill_chunk, coalescer, turn: 0, order }
    }

    /// A new tick: other lanes are first.
    pub(crate) fn next_turn(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }

    /// Fills `plan` with the rows of the next core launch, at most one span per lane. Decoding lanes come first; prefill
    /// takes what they leave, and never less than one row.
    pub(crate) fn plan(&mut self, lanes: &[Lane], plan: &mut Vec<Span>) {
        plan.clear();
        self.sort(lanes);
        let only = self.only_depth(lanes);
        let may_run = |lane: &Lane| match self.schedule {
            Schedule::Depth => true,
            Schedule::Lockstep => lane.depth() > 0 || !lanes.iter().any(Lane::is_under_way),
            Schedule::Homogeneous => Some(lane.depth()) == only,
        };
        let prefills = lanes.iter().any(|lane| !lane.decodes() && may_run(lane));
        let mut budget = self.max_rows - usize::from(prefills);
        for &index in &self.order {
            let lane = &lanes[index];
            if budget > 0 && lane.iterates() && may_run(lane) {
                plan.push(Span { lane: index, from: lane.sequence.settled(), count: 1 });
                budget -= 1;
            }
        }
        budget += usize::from(prefills);
        for &index in &self.order {
            let Progress::Settled { group, next, .. } = &lanes[index].progress else { continue };
            let count = (group.end - next).min(self.prefill_chunk).min(budget);
            if count > 0 && (self.schedule == Schedule::Lockstep || may_run(&lanes[index])) {
                plan.push(Span { lane: index, from: *next, count });
                budget -= count;
            }
        }
    }

    /// Whether the decoding lanes that are done iterating go through the coda in this tick. `departing`: others do anyway.
    pub(crate) fn leave(&mut self, lanes: &[Lane], departing: bool, costs: &Costs) -> bool {
        let rows = lanes.iter().filter(|lane| lane.waited().is_some()).count();
        let iterating = lanes.iter().filter(|lane| lane.goes_on());
        let under_way = iterating.clone().any(Lane::is_under_way);
        if self.schedule == Schedule::Lockstep {
            return rows > 0 && !under_way;
        }
        let oldest = lanes.iter().filter_map(Lane::waited).max().unwrap_or(0);
        let waiting = Waiting { rows, oldest, iterating: iterating.count() };
        self.coalescer.leave(waiting, costs) || (departing && rows > 0)
    }

    /// Puts lanes in the order in which they get rows: by priority, and among equals in turns.
    fn sort(&mut self, lanes: &[Lane]) {
        let Self { order, turn, .. } = self;
        order.clear();
        order.extend(0..lanes.len());
        order.sort_unstable_by_key(|&lane| {
            let turn = (lane + lanes.len() - *turn % lanes.len()) % lanes.len();
            (Reverse(lanes[lane].sequence.request.priority), turn)
        });
    }

    /// The depth that most rows are at, the least of several; none where rows of all depths may run.
    fn only_depth(&self, lanes: &[Lane]) -> Option<Depth> {
        if self.schedule != Schedule::Homogeneous {
            return None;
        }
        let depths = || lanes.iter().filter(|lane| !lane.decodes() || lane.goes_on()).map(Lane::depth);
        depths().max_by_key(|&depth| (depths().filter(|other| *other == depth).count(), Reverse(depth)))
    }
}
