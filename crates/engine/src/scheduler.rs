//! Which rows run in a tick. Pure: it reads lanes and decides.

use crate::config::{EngineConfig, Schedule};
use crate::lane::{Lane, Span, Stage};

/// Shares a tick's rows among lanes.
#[derive(Debug)]
pub(crate) struct Scheduler {
    schedule: Schedule,
    max_rows: usize,
    prefill_chunk: usize,
    /// Grows every tick, so that lanes take turns at being first when not all fit.
    turn: usize,
}

impl Scheduler {
    pub(crate) fn new(config: &EngineConfig) -> Self {
        let EngineConfig { schedule, max_rows, prefill_chunk, .. } = *config;
        Self { schedule, max_rows, prefill_chunk, turn: 0 }
    }

    /// The rows of the next core launch, at most one span per lane. Decoding lanes come first; prefill takes what they leave,
    /// and never less than one row.
    pub(crate) fn plan(&mut self, lanes: &[Lane]) -> Vec<Span> {
        self.turn = self.turn.wrapping_add(1);
        let order = (0..lanes.len()).map(|i| (i + self.turn) % lanes.len());
        let (prefilling, decoding): (Vec<_>, Vec<_>) =
            order.partition(|&lane| matches!(lanes[lane].stage, Stage::Prefill { .. }));
        let mut budget = self.max_rows - usize::from(!prefilling.is_empty());
        let may_start = self.schedule == Schedule::Depth || !lanes.iter().any(is_under_way);
        let mut plan = Vec::new();
        for lane in decoding {
            let Stage::Decode { depth, leaving, .. } = lanes[lane].stage else { continue };
            if budget > 0 && !leaving && (depth > 0 || may_start) {
                plan.push(Span { lane, from: lanes[lane].tokens.len() - 1, count: 1 });
                budget -= 1;
            }
        }
        budget += usize::from(!prefilling.is_empty());
        for lane in prefilling {
            let Stage::Prefill { next, .. } = lanes[lane].stage else { continue };
            let count = (lanes[lane].request.prompt.len() - next).min(self.prefill_chunk).min(budget);
            if count > 0 {
                plan.push(Span { lane, from: next, count });
                budget -= count;
            }
        }
        plan
    }

    /// Which of the decoding lanes that are done iterating go through the coda now.
    pub(crate) fn leaving(&self, lanes: &[Lane]) -> Vec<Span> {
        let is_iterating = |lane: &Lane| is_under_way(lane) && !is_leaving(lane);
        if self.schedule == Schedule::Lockstep && lanes.iter().any(is_iterating) {
            return Vec::new();
        }
        let leaving = (0..lanes.len()).filter(|&lane| is_leaving(&lanes[lane]));
        leaving.map(|lane| Span { lane, from: lanes[lane].tokens.len() - 1, count: 1 }).collect()
    }
}

fn is_leaving(lane: &Lane) -> bool {
    matches!(lane.stage, Stage::Decode { leaving: true, .. })
}

/// Whether the lane decodes and its row has begun to iterate.
fn is_under_way(lane: &Lane) -> bool {
    matches!(lane.stage, Stage::Decode { depth, .. } if depth > 0)
}
