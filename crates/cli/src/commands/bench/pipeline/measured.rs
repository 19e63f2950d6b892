//! Rings that are measured.

use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use windlass_engine::{Engine, EngineConfig, MonotonicClock};
use windlass_kernels::{Cpu, CpuConfig};
use windlass_model::stages::StageMeter;
use windlass_model::{ModelConfig, Ring, Runner, Split, split};

use super::super::mode::Mode;
use super::super::outcome::run;
use super::super::workload::Workload;

/// Tokens of each request in the run that is not counted.
const WARM_UP_TOKENS: usize = 2;

/// What is measured.
pub(super) struct Rings<'a> {
    pub(super) model: &'a ModelConfig,
    /// Of each stage.
    pub(super) cpu: CpuConfig,
    pub(super) seed: u64,
    pub(super) stages: &'a [usize],
}

/// A number of stages: the round of median time.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Measured {
    pub(super) stages: usize,
    /// Core layers of each stage.
    pub(super) cut: Vec<usize>,
    pub(super) tokens_per_second: f64,
    /// Tokens per second over those of the first number of stages.
    pub(super) over_first: f64,
    /// Share of its time that each stage computed; of a single one not measured.
    pub(super) busy: Vec<f64>,
    /// Share of the time of all stages in which they did not compute.
    pub(super) bubbles: f64,
    /// Mean over the largest of what stages computed.
    pub(super) balance: f64,
    /// Tokens per second of every round, in order.
    pub(super) rounds: Vec<f64>,
}

/// One of the rings, loaded.
struct Bench {
    cut: Vec<Range<usize>>,
    engine: Engine<Box<dyn Runner>>,
    /// Of more stages than one.
    meter: Option<StageMeter>,
}

/// One run.
struct Run {
    tokens_per_second: f64,
    busy: Vec<f64>,
}

/// Runs `workload` on every ring in turn, `rounds` times, each round beginning with another.
pub(super) fn measure(
    rings: &Rings<'_>,
    config: &EngineConfig,
    workload: &Workload,
    rounds: usize,
) -> Result<Vec<Measured>> {
    let mut benches = Vec::new();
    for &stages in rings.stages {
        let mut bench = rings.load(stages, config)?;
        run(&mut bench.engine, &workload.cut(WARM_UP_TOKENS), Mode::Depth)?;
        benches.push(bench);
    }
    let mut runs: Vec<Vec<Run>> = benches.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for turn in 0..benches.len() {
            let ring = (round + turn) % benches.len();
            runs[ring].push(benches[ring].run(workload)?);
        }
    }
    let mut measured: Vec<Measured> =
        benches.iter().zip(&runs).map(|(bench, runs)| Measured::new(&bench.cut, runs)).collect();
    let first = measured.first().map_or(1.0, |first| first.tokens_per_second);
    measured.iter_mut().for_each(|ring| ring.over_first = ring.tokens_per_second / first);
    Ok(measured)
}

impl Rings<'_> {
    fn load(&self, stages: usize, config: &EngineConfig) -> Result<Bench> {
        let backends = (0..stages).map(|_| vec![Cpu::with(self.cpu)]).collect();
        let split = Split::new(backends, self.model)?;
        let cut = split.stages().to_vec();
        let parts = split.synthetic(self.model, self.seed);
        let (runner, meter): (Box<dyn Runner>, _) = if parts.len() > 1 {
            let ring = Ring::new(parts);
            let meter = ring.meter();
            (Box::new(ring), Some(meter))
        } else {
            (split::runner(parts), None)
        };
        let engine = Engine::new(runner, config.clone(), Box::new(MonotonicClock::start()))?;
        Ok(Bench { cut, engine, meter })
    }
}

impl Bench {
    fn run(&mut self, workload: &Workload) -> Result<Run> {
        let before = self.busy();
        let outcome = run(&mut self.engine, workload, Mode::Depth)?;
        let share = |(before, after): (Duration, Duration)| (after - before).as_secs_f64() / outcome.seconds;
        let busy = before.into_iter().zip(self.busy()).map(share).collect();
        Ok(Run { tokens_per_second: outcome.tokens_per_second(), busy })
    }

    fn busy(&self) -> Vec<Duration> {
        self.meter.as_ref().map_or_else(Vec::new, StageMeter::busy)
    }
}

impl Measured {
    /// Of runs, at least one.
    fn new(cut: &[Range<usize>], runs: &[Run]) -> Self {
        let mut by_speed: Vec<&Run> = runs.iter().collect();
        by_speed.sort_by(|a, b| a.tokens_per_second.total_cmp(&b.tokens_per_second));
        let Run { tokens_per_second, busy } = by_speed[runs.len() / 2];
        let (stages, sum) = (cut.len() as f64, busy.iter().sum::<f64>());
        let most = busy.iter().copied().fold(0.0, f64::max);
        let is_metered = !busy.is_empty();
        Self {
            stages: cut.len(),
            cut: cut.iter().map(Range::len).collect(),
            tokens_per_second: *tokens_per_second,
            over_first: 1.0,
            busy: busy.clone(),
            bubbles: if is_metered { 1.0 - sum / stages } else { 0.0 },
            balance: if is_metered { sum / (most * stages) } else { 1.0 },
            rounds: runs.iter().map(|run| run.tokens_per_second).collect(),
        }
    }
}
