//! How rows would go round a ring of stages, from what layer, adapter and head take.
//!
//! Launches queue at each stage in the order in which they arrive. What handing activations over and the engine's own work take
//! is not counted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::time::Duration;

use serde::Serialize;
use windlass_model::ModelConfig;
use windlass_model::stages::{Costs, TooManyStages, cut};

/// Tokens of each row that are simulated.
const TOKENS: u32 = 200;

/// A ring on which every launch has the same rows, each of which takes as many iterations a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    pub(super) depth: u32,
    /// Launches under way.
    pub(super) launches: usize,
}

/// What became of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Simulated {
    pub(super) stages: usize,
    /// Layers of the core: the model's, or one for each stage where there are more of these.
    pub(super) core_layers: usize,
    /// Core layers of each stage.
    pub(super) cut: Vec<usize>,
    /// Tokens per second over those of one stage with rows of one launch.
    pub(super) speedup: f64,
    /// That over the number of stages.
    pub(super) efficiency: f64,
    /// Share of the time of all stages in which they wait.
    pub(super) bubbles: f64,
    /// Mean over the largest of what stages have to do.
    pub(super) balance: f64,
}

/// Simulates `stages` stages of a model that has at least as many core layers.
pub(super) fn simulate(
    model: &ModelConfig,
    costs: &Costs,
    depth: u32,
    stages: usize,
) -> Result<Simulated, TooManyStages> {
    let model = ModelConfig { core_layers: model.core_layers.max(stages), ..model.clone() };
    let cut = cut(&model, costs, f64::from(depth), stages)?;
    let work = Work { depth, launches: stages };
    let times: Vec<StageTimes> = cut.iter().map(|core| StageTimes::new(costs, &model, core)).collect();
    let (seconds, busy) = run(&times, work);
    let whole = costs.stage(&model, &(0..model.core_layers), f64::from(depth)).as_secs_f64();
    let rounds = f64::from(TOKENS) * work.launches as f64;
    let (sum, most) = (busy.iter().sum::<f64>(), busy.iter().copied().fold(0.0, f64::max));
    let speedup = rounds * whole / seconds;
    Ok(Simulated {
        stages,
        core_layers: model.core_layers,
        cut: cut.iter().map(Range::len).collect(),
        speedup,
        efficiency: speedup / stages as f64,
        bubbles: 1.0 - sum / (seconds * stages as f64),
        balance: sum / (most * stages as f64),
    })
}

/// Seconds that one stage takes for a launch of each part.
#[derive(Debug, Clone, Copy)]
struct StageTimes {
    prelude: f64,
    core: f64,
    coda: f64,
}

impl StageTimes {
    fn new(costs: &Costs, model: &ModelConfig, core: &Range<usize>) -> Self {
        let (is_first, is_last) = (core.start == 0, core.end == model.core_layers);
        let if_here = |is_here: bool, time: Duration| if is_here { time } else { Duration::ZERO };
        let core = costs.layer * core.len() as u32 + if_here(is_first, costs.adapter);
        let prelude = if_here(is_first, costs.layer * model.prelude_layers as u32);
        let coda = if_here(is_last, costs.layer * model.coda_layers as u32 + costs.head);
        let [prelude, core, coda] = [prelude, core, coda].map(|time| time.as_secs_f64());
        Self { prelude, core, coda }
    }
}

/// A launch on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Arrival {
    /// Nanoseconds from the start.
    at: u64,
    launch: usize,
    stage: usize,
    /// Iterations left of its token; behind the last comes the coda.
    left: u32,
    tokens: u32,
}

/// Runs all launches until their tokens are out; returns seconds, and those that each stage was busy.
fn run(stages: &[StageTimes], work: Work) -> (f64, Vec<f64>) {
    let Work { depth, launches } = work;
    let last = stages.len() - 1;
    let (mut free_at, mut busy) = (vec![0.0_f64; stages.len()], vec![0.0; stages.len()]);
    // Launches begin as far apart in their tokens as can be.
    let left = |launch: usize| depth - (launch * depth as usize / launches) as u32;
    let first = |launch| Arrival { at: 0, launch, stage: 0, left: left(launch), tokens: 0 };
    let mut arrivals: BinaryHeap<Reverse<Arrival>> =
        (0..launches).map(|launch| Reverse(first(launch))).collect();
    let mut end = 0.0_f64;
    while let Some(Reverse(arrival)) = arrivals.pop() {
        let Arrival { stage, left, tokens, .. } = arrival;
        let times = stages[stage];
        let takes = match (left, stage) {
            (0, _) => times.coda,
            (left, 0) if left == depth => times.prelude + times.core,
            _ => times.core,
        };
        let done = free_at[stage].max(arrival.at as f64 * 1e-9) + takes;
        free_at[stage] = done;
        busy[stage] += takes;
        end = end.max(done);
        let next = match (left, stage == last) {
            (0, _) => Arrival { stage: 0, left: depth, tokens: tokens + 1, ..arrival },
            (1, true) => Arrival { left: 0, ..arrival },
            (_, true) => Arrival { stage: 0, left: left - 1, ..arrival },
            (_, false) => Arrival { stage: stage + 1, ..arrival },
        };
        if next.tokens < TOKENS {
            arrivals.push(Reverse(Arrival { at: (done * 1e9) as u64, ..next }));
        }
    }
    (end, busy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::shape::ShapeArgument;

    const COSTS: Costs =
        Costs { layer: Duration::from_micros(100), adapter: Duration::ZERO, head: Duration::ZERO };

    fn model() -> ModelConfig {
        let ShapeArgument(model) =
            "d=32,heads=2,ff=48,layers=1+4+1,vocabulary=64,context=64".parse().unwrap();
        model
    }

    #[test]
    fn one_stage_is_as_fast_as_itself_and_never_waits() {
        let simulated = simulate(&model(), &COSTS, 8, 1).unwrap();
        assert!((simulated.speedup - 1.0).abs() < 1e-3 && simulated.bubbles < 1e-3, "{simulated:?}");
    }

    #[test]
    fn deep_tokens_on_equal_stages_leave_hardly_a_bubble() {
        for stages in [2, 4, 16] {
            let simulated = simulate(&model(), &COSTS, 256, stages).unwrap();
            assert_eq!(simulated.core_layers, stages.max(4));
            assert!(simulated.efficiency > 0.95 && simulated.efficiency < 1.01, "{simulated:?}");
            assert!(simulated.bubbles < 0.05 && simulated.balance > 0.98, "{simulated:?}");
        }
    }

    #[test]
    fn what_stages_have_to_do_bounds_how_fast_they_are() {
        for stages in [2, 3, 4, 8] {
            let Simulated { speedup, balance, efficiency, bubbles, .. } =
                simulate(&model(), &COSTS, 4, stages).unwrap();
            assert!(speedup <= 1.01 * stages as f64 * balance && efficiency <= 1.01 * balance);
            assert!(bubbles >= 1.0 - balance - 1e-3, "{stages}: {bubbles} {balance}");
        }
    }
}
