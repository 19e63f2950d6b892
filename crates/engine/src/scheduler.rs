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

    /// Fills `plan` with the rows of the next core launch but for drafts, at most one span per lane. Decoding lanes come first;
    /// prefill takes what they leave, and never less than one row.
    pub(crate) fn plan(&mut self, lanes: &[Lane], plan: &mut Vec<Span>) {
        plan.clear();
        self.sort(lanes);
        let only = self.only_depth(lanes);
        let may_run = |lane: &Lane| match self.schedule {
            Schedule::Depth => true,
            Schedule::Lockstep => lane.depth() > 0 || !lanes.iter().any(Lane::is_under_way),
            Schedule::Homogeneous => Some(lane.depth()) == only,
        };
        let prefills = lanes.iter().any(|lane| lane.has_prompt_to_run() && may_run(lane));
        let mut budget = self.max_rows - usize::from(prefills);
        for &index in &self.order {
            let lane = &lanes[index];
            if budget > 0 && lane.may_iterate(0) && may_run(lane) {
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

    /// Adds drafts to what [`Self::plan`] left room for, as long as `has_memory` holds of each: of every lane the first, in the same
    /// order, then of every lane the second, and so on. What is far behind a last token is the likelier in vain.
    pub(crate) fn plan_drafts(
        &self,
        lanes: &[Lane],
        plan: &mut Vec<Span>,
        mut has_memory: impl FnMut(&Span) -> bool,
    ) {
        let mut budget = self.max_rows - plan.iter().map(|span| span.count).sum::<usize>();
        let most = lanes.iter().map(Lane::drafts).max().unwrap_or(0);
        for behind in 1..=most {
            for &index in &self.order {
                let lane = &lanes[index];
                let span = Span { lane: index, from: lane.sequence.settled() + behind, count: 1 };
                if budget > 0 && lane.may_iterate(behind) && has_memory(&span) {
                    plan.push(span);
                    budget -= 1;
                }
            }
        }
    }

    /// Whether the decoding lanes that are done iterating go through the coda in this tick. `departing`: others do anyway.
    pub(crate) fn leave(&mut self, lanes: &[Lane], departing: bool, costs: &Costs) -> bool {
        let rows = lanes.iter().filter(|lane| lane.waited().is_some()).count();
        let under_way = lanes.iter().any(|lane| lane.goes_on() && lane.is_under_way());
        if self.schedule == Schedule::Lockstep {
            return rows > 0 && !under_way;
        }
        let oldest = lanes.iter().filter_map(Lane::waited).max().unwrap_or(0);
        let iterating = lanes.iter().filter(|lane| lane.goes_on()).count();
        let waiting = Waiting { rows, oldest, iterating };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::Grouping;
    use crate::memory::Place;
    use crate::request::{Request, RequestId};
    use crate::row::RowState;
    use crate::sequence::Sequence;
    use std::time::Duration;
    use windlass_model::{DepthPolicy, KvPolicy};

    const GROUPING: Grouping = Grouping { segment: None, most: 100, vocabulary: 8 };

    /// A lane that decodes, with rows of these depths, of which some are done.
    fn lane(rows: &[(Depth, bool)]) -> Lane {
        let request = Request::greedy(vec![1, 2], 50, DepthPolicy::Fixed(32), KvPolicy::Full);
        let mut sequence = Sequence::new(RequestId(0), request, 0, Duration::ZERO);
        sequence.push(3, 32);
        let place = Place { table: 0, latents: vec![0], reused: sequence.settled() };
        let mut lane = Lane::open(sequence, place, GROUPING);
        (1..rows.len()).for_each(|latent| lane.draft(4, latent as u32, GROUPING));
        for (row, &(depth, is_done)) in lane.rows_mut().iter_mut().zip(rows) {
            row.depth = depth;
            row.state = if is_done { RowState::Waiting(0) } else { RowState::Iterates };
        }
        lane
    }

    /// Lanes and how far behind their first row is who is planned, of at most so many rows, where prompts leave all to them.
    fn planned(lanes: &[Lane], max_rows: usize) -> Vec<(usize, usize)> {
        let model = windlass_model::ModelFolder::demo().config().expect("the demo model has a config");
        let mut scheduler = Scheduler::new(&EngineConfig { max_rows, ..EngineConfig::new(&model, 32) });
        let mut plan = Vec::new();
        scheduler.plan(lanes, &mut plan);
        scheduler.plan_drafts(lanes, &mut plan, |_| true);
        plan.iter().map(|span| (span.lane, span.from - lanes[span.lane].sequence.settled())).collect()
    }

    #[test]
    fn a_draft_never_gets_as_deep_as_a_row_before_it_that_goes_on() {
        assert_eq!(planned(&[lane(&[(5, false), (4, false)])], 9), [(0, 0), (0, 1)]);
        assert_eq!(planned(&[lane(&[(5, false), (5, false)])], 9), [(0, 0)]);
        // What is done in between has nothing to say.
        assert_eq!(planned(&[lane(&[(5, false), (2, true), (4, false)])], 9), [(0, 0), (0, 2)]);
        assert_eq!(planned(&[lane(&[(5, false), (2, true), (5, false)])], 9), [(0, 0)]);
        assert_eq!(planned(&[lane(&[(5, true), (2, true), (5, false)])], 9), [(0, 2)]);
    }

    #[test]
    fn last_tokens_come_first_and_then_the_nearest_drafts() {
        let lanes = || [lane(&[(9, false), (6, false), (3, false)]), lane(&[(8, false), (1, false)])];
        assert_eq!(planned(&lanes(), 9), [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]);
        assert_eq!(planned(&lanes(), 4), [(0, 0), (1, 0), (0, 1), (1, 1)]);
    }
}
