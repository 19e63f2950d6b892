//! The rows of a launch, as a network wants them.

use windlass_kernels::{KvRow, KvRows, KvTable};
use windlass_model::Launch;

use crate::lane::{Lane, Span};

/// Reused from launch to launch.
#[derive(Debug)]
pub(crate) struct LaunchRows {
    latents: Vec<u32>,
    kv: Vec<KvRow>,
    capacity: usize,
}

impl LaunchRows {
    /// With room for this many.
    pub(crate) fn new(rows: usize) -> Self {
        Self { latents: Vec::with_capacity(rows), kv: Vec::with_capacity(rows), capacity: rows }
    }

    /// The positions of these spans that take another iteration, at the slots they write now.
    pub(crate) fn core(&mut self, lanes: &[Lane], spans: &[Span]) {
        self.clear();
        for span in spans {
            let lane = &lanes[span.lane];
            let slot = lane.core_slot(span.from);
            lane.iterating(*span).for_each(|position| self.push(lane, position, slot));
        }
    }

    /// All positions of these spans, at the slot of prelude and coda.
    pub(crate) fn ends(&mut self, lanes: &[Lane], spans: impl Iterator<Item = Span>) {
        self.clear();
        for span in spans {
            let lane = &lanes[span.lane];
            span.positions().for_each(|position| self.push(lane, position, 0));
        }
    }

    /// Most rows of a launch.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn len(&self) -> usize {
        self.latents.len()
    }

    pub(crate) fn launch<'a>(&'a self, tables: &'a [KvTable]) -> Launch<'a> {
        Launch { latents: &self.latents, kv: KvRows { rows: &self.kv, tables } }
    }

    fn clear(&mut self) {
        self.latents.clear();
        self.kv.clear();
    }

    fn push(&mut self, lane: &Lane, position: usize, slot: u32) {
        self.latents.push(lane.latent(position));
        self.kv.push(KvRow { table: lane.table as u32, position: position as u32, slot });
    }
}
