//! What all batches of an engine share.

use std::time::Duration;

use windlass_kernels::LatentChange;
use windlass_model::{Capacity, Found, Runner};

use crate::clock::Clock;
use crate::config::EngineConfig;
use crate::cost::Costs;
use crate::lane::Grouping;
use crate::launch::{LaunchRecord, Phase};
use crate::load::Load;
use crate::memory::Memory;
use crate::sampler::SamplerScratch;

/// What all batches of an engine share: the model, memory, time, and what is counted.
pub(crate) struct Shared<R: Runner> {
    pub(crate) runner: R,
    pub(crate) config: EngineConfig,
    pub(crate) clock: Box<dyn Clock>,
    pub(crate) memory: Memory,
    pub(crate) costs: Costs,
    pub(crate) counters: Load,
    /// Of the last tick.
    pub(crate) launches: Vec<LaunchRecord>,
    pub(crate) buffers: Buffers,
}

/// What goes into a launch and comes out of it; kept for its memory alone.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(crate) tokens: Vec<u32>,
    pub(crate) initial: Vec<f32>,
    pub(crate) changes: Vec<LatentChange>,
    pub(crate) found: Found,
    pub(crate) sampler: SamplerScratch,
}

impl Buffers {
    /// With room for launches of that capacity, so that none allocates. Rows of logits are long, and seldom wanted: they grow.
    pub(crate) fn new(Capacity { rows, .. }: Capacity, hidden: usize) -> Self {
        Self {
            tokens: Vec::with_capacity(rows),
            initial: Vec::with_capacity(rows * hidden),
            changes: Vec::with_capacity(rows),
            found: Found {
                logits: Vec::new(),
                most_likely: Vec::with_capacity(rows),
                drawn: Vec::with_capacity(rows),
            },
            ..Self::default()
        }
    }
}

impl<R: Runner> Shared<R> {
    pub(crate) fn grouping(&self) -> Grouping {
        Grouping {
            segment: self.config.prefill_segment,
            most: self.config.prefill_positions,
            vocabulary: self.runner.config().vocabulary,
        }
    }

    /// Notes a launch that began at `start` and kept devices busy for `busy`; until now, where that is not known. `decodes`: all its
    /// rows did.
    pub(crate) fn record(
        &mut self,
        phase: Phase,
        rows: usize,
        decodes: bool,
        start: Duration,
        busy: Option<Duration>,
    ) {
        let end = busy.map_or_else(|| self.clock.now(), |busy| start + busy);
        let launch = LaunchRecord { phase, rows: rows as u32, start, end };
        self.costs.observe(&launch, decodes);
        self.launches.push(launch);
    }
}
