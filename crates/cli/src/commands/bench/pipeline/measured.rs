//! Rings that are measured, each beside as many engines that have nothing to do with each other.

use std::ops::Range;
use std::panic::resume_unwind;
use std::thread;
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
    /// Tokens per second of as many engines of one stage side by side, which share the sequences and never wait for each other:
    /// what the machine gives so many threads. Of one stage its own.
    pub(super) separate_tokens_per_second: f64,
    /// Share of its time that each stage computed; of a single one not measured.
    pub(super) busy: Vec<f64>,
    /// Share of the time of all stages in which they did not compute.
    pub(super) bubbles: f64,
    /// Mean over the largest of what stages computed.
    pub(super) balance: f64,
    /// Tokens per second of every round, in order.
    pub(super) rounds: Vec<f64>,
}

/// A ring, and the engines that it is compared with if it has several stages.
struct Contest {
    cut: Vec<Range<usize>>,
    ring: Bench,
    separate: Option<Bench>,
}

/// Engines that run side by side, loaded, and what they have done.
struct Bench {
    engines: Vec<(Engine<Box<dyn Runner>>, Workload)>,
    /// Of a ring of more stages than one.
    meter: Option<StageMeter>,
    runs: Vec<Run>,
}

/// One run.
#[derive(Debug, Clone)]
struct Run {
    tokens_per_second: f64,
    busy: Vec<f64>,
}

/// Runs `workload` on every ring and on the engines beside it in turn, `rounds` times, each round beginning with another.
pub(super) fn measure(
    rings: &Rings<'_>,
    config: &EngineConfig,
    workload: &Workload,
    rounds: usize,
) -> Result<Vec<Measured>> {
    let contests: Result<Vec<_>> =
        rings.stages.iter().map(|&stages| rings.contest(stages, config, workload)).collect();
    let mut contests = contests?;
    for round in 0..rounds {
        let mut turns: Vec<&mut Bench> = contests.iter_mut().flat_map(Contest::benches).collect();
        let first = round % turns.len();
        turns.rotate_left(first);
        for bench in turns {
            let run = bench.run()?;
            bench.runs.push(run);
        }
    }
    let mut measured: Vec<Measured> = contests.iter().map(Measured::new).collect();
    let first = measured.first().map_or(1.0, |first| first.tokens_per_second);
    measured.iter_mut().for_each(|ring| ring.over_first = ring.tokens_per_second / first);
    Ok(measured)
}

impl Rings<'_> {
    /// How many times the weights of the model are loaded.
    pub(super) fn copies(&self) -> usize {
        self.stages.iter().map(|&stages| if stages > 1 { 1 + stages } else { 1 }).sum()
    }

    fn contest(&self, stages: usize, config: &EngineConfig, workload: &Workload) -> Result<Contest> {
        let (cut, ring) = self.load(stages, config, vec![workload.clone()])?;
        let separate = match stages {
            1 => None,
            _ => Some(self.load(1, config, workload.dealt(stages))?.1),
        };
        Ok(Contest { cut, ring, separate })
    }

    /// An engine of `stages` stages for each of `workloads`, which has run once.
    fn load(
        &self,
        stages: usize,
        config: &EngineConfig,
        workloads: Vec<Workload>,
    ) -> Result<(Vec<Range<usize>>, Bench)> {
        let (mut cut, mut meter, mut engines) = (Vec::new(), None, Vec::new());
        for workload in workloads {
            let backends = (0..stages).map(|_| vec![Cpu::with(self.cpu)]).collect();
            let split = Split::new(backends, self.model)?;
            cut = split.stages().to_vec();
            let parts = split.synthetic(self.model, self.seed);
            let runner: Box<dyn Runner> = if parts.len() > 1 {
                let ring = Ring::new(parts);
                meter = Some(ring.meter());
                Box::new(ring)
            } else {
                split::runner(parts)
            };
            let mut engine = Engine::new(runner, config.clone(), Box::new(MonotonicClock::start()))?;
            run(&mut engine, &workload.cut(WARM_UP_TOKENS), Mode::Depth)?;
            engines.push((engine, workload));
        }
        Ok((cut, Bench { engines, meter, runs: Vec::new() }))
    }
}

impl Contest {
    fn benches(&mut self) -> impl Iterator<Item = &mut Bench> {
        [&mut self.ring].into_iter().chain(&mut self.separate)
    }
}

impl Bench {
    fn run(&mut self) -> Result<Run> {
        let before = self.busy();
        let outcomes: Result<Vec<_>> = thread::scope(|scope| {
            let run = |(engine, workload): &mut (_, Workload)| run(engine, workload, Mode::Depth);
            let running: Vec<_> = self.engines.iter_mut().map(|one| scope.spawn(move || run(one))).collect();
            running.into_iter().map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        let outcomes = outcomes?;
        let tokens: usize = outcomes.iter().map(|outcome| outcome.tokens).sum();
        let seconds = outcomes.iter().map(|outcome| outcome.seconds).fold(0.0, f64::max);
        let share = |(before, after): (Duration, Duration)| (after - before).as_secs_f64() / seconds;
        let busy = before.into_iter().zip(self.busy()).map(share).collect();
        Ok(Run { tokens_per_second: tokens as f64 / seconds, busy })
    }

    fn busy(&self) -> Vec<Duration> {
        self.meter.as_ref().map_or_else(Vec::new, StageMeter::busy)
    }

    /// The run of median time.
    fn median(&self) -> Run {
        let mut by_speed: Vec<&Run> = self.runs.iter().collect();
        by_speed.sort_by(|a, b| a.tokens_per_second.total_cmp(&b.tokens_per_second));
        by_speed[self.runs.len() / 2].clone()
    }
}

impl Measured {
    /// Of a contest of at least one round.
    fn new(contest: &Contest) -> Self {
        let Contest { cut, ring, separate } = contest;
        let Run { tokens_per_second, busy } = ring.median();
        let separate = separate.as_ref().map_or(tokens_per_second, |bench| bench.median().tokens_per_second);
        let (stages, sum) = (cut.len() as f64, busy.iter().sum::<f64>());
        let most = busy.iter().copied().fold(0.0, f64::max);
        let is_metered = !busy.is_empty();
        Self {
            stages: cut.len(),
            cut: cut.iter().map(Range::len).collect(),
            tokens_per_second,
            over_first: 1.0,
            separate_tokens_per_second: separate,
            busy,
            bubbles: if is_metered { 1.0 - sum / stages } else { 0.0 },
            balance: if is_metered { sum / (most * stages) } else { 1.0 },
            rounds: ring.runs.iter().map(|run| run.tokens_per_second).collect(),
        }
    }
}
