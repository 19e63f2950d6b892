//! One sequence being served.

use windlass_kernels::KvTable;
use windlass_model::Depth;

use crate::event::Usage;
use crate::exit::Exit;
use crate::pool::Pool;
use crate::request::{Request, RequestId};
use crate::sampler::Sampler;

/// A sequence with its memory: K/V blocks, and rows of the latent buffer for positions in flight.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) id: RequestId,
    pub(crate) request: Request,
    /// Prompt and generated tokens.
    pub(crate) tokens: Vec<u32>,
    /// Index of its block table; the table itself lives beside the others.
    pub(crate) table: usize,
    /// Blocks promised to this lane and not taken yet.
    promised_blocks: usize,
    /// In prefill one row per prompt position, in decode one.
    latents: Vec<u32>,
    pub(crate) stage: Stage,
    pub(crate) sampler: Sampler,
    completion_core_iterations: u64,
}

/// What a lane's positions in flight are doing.
#[derive(Debug)]
pub(crate) enum Stage {
    /// The prompt moves depth by depth: all positions have completed `depth`, those before `next` one more.
    Prefill {
        /// Iterations that every prompt position has completed.
        depth: Depth,
        /// First position that has yet to run at this depth.
        next: usize,
    },
    /// The last token's position iterates.
    Decode {
        /// Iterations completed.
        depth: Depth,
        /// When it stops.
        exit: Exit,
        /// Whether it is done iterating and waits for the coda.
        leaving: bool,
    },
}

/// Positions `from..from + count` of a lane that take part in a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Index of the lane.
    pub(crate) lane: usize,
    pub(crate) from: usize,
    pub(crate) count: usize,
}

impl Span {
    pub(crate) fn positions(&self) -> std::ops::Range<usize> {
        self.from..self.from + self.count
    }
}

impl Lane {
    /// Whether there is memory for `request` now.
    pub(crate) fn fits(request: &Request, blocks: &Pool, latents: &Pool) -> bool {
        request.kv_blocks() <= blocks.available() && request.prompt.len() <= latents.available()
    }

    /// A lane for a request that [`Self::fits`].
    pub(crate) fn open(
        id: RequestId,
        request: Request,
        table: usize,
        blocks: &mut Pool,
        latents: &mut Pool,
    ) -> Self {
        let (promised_blocks, rows) = (request.kv_blocks(), request.prompt.len());
        assert!(blocks.reserve(promised_blocks) && latents.reserve(rows), "a lane without memory for it");
        Self {
            id,
            tokens: request.prompt.clone(),
            table,
            promised_blocks,
            latents: (0..rows).map(|_| latents.take()).collect(),
            stage: Stage::Prefill { depth: 0, next: 0 },
            sampler: Sampler::new(request.sampling.clone(), &request.prompt),
            completion_core_iterations: 0,
            request,
        }
    }

    /// Gives all memory back.
    pub(crate) fn close(&mut self, table: &mut KvTable, blocks: &mut Pool, latents: &mut Pool) {
        blocks.release(table.drain());
        blocks.unreserve(std::mem::take(&mut self.promised_blocks));
        latents.release(self.latents.drain(..));
    }

    /// Iterations completed by the positions that run next.
    pub(crate) fn depth(&self) -> Depth {
        match self.stage {
            Stage::Prefill { depth, .. } | Stage::Decode { depth, .. } => depth,
        }
    }

    /// The row of the latent buffer that belongs to `position`.
    pub(crate) fn latent(&self, position: usize) -> u32 {
        match self.stage {
            Stage::Prefill { .. } => self.latents[position],
            Stage::Decode { .. } => self.latents[0],
        }
    }

    /// The table slot that core layers write at the current depth.
    pub(crate) fn core_slot(&self) -> u32 {
        self.request.kv.slot(self.depth()) + 1
    }

    /// Takes the blocks that a launch of `span` at the current depth writes to, and marks its positions as written.
    pub(crate) fn prepare(&mut self, span: Span, table: &mut KvTable, blocks: &mut Pool) {
        let (slot, depth) = (self.core_slot(), self.depth());
        let top_slot = self.request.kv.slots(depth + 1);
        for position in span.positions() {
            if depth == 0 {
                self.ensure_block(0, position, table, blocks);
            }
            self.ensure_block(slot, position, table, blocks);
            table.set_top_slot(position, top_slot);
        }
    }

    fn ensure_block(&mut self, slot: u32, position: usize, table: &mut KvTable, blocks: &mut Pool) {
        if table.block(slot, position).is_none() {
            assert!(self.promised_blocks > 0, "a lane needs more blocks than it was promised");
            self.promised_blocks -= 1;
            table.set_block(slot, position, blocks.take());
        }
    }

    /// Appends a generated token that took `depth` iterations, and makes its position the one in flight.
    pub(crate) fn push(&mut self, token: u32, depth: Depth, vocabulary: usize, latents: &mut Pool) {
        self.tokens.push(token);
        self.completion_core_iterations += u64::from(depth);
        // Any row will do for the next position: it starts from a latent of its own.
        latents.release(self.latents.drain(1..));
        let recorded = self.request.recorded_depths.as_ref();
        let recorded = recorded.and_then(|depths| depths.get(self.generated())).copied();
        let exit = Exit::new(&self.request.depth, recorded, vocabulary);
        self.stage = Stage::Decode { depth: 0, exit, leaving: false };
    }

    /// Whether the lane's row leaves, now that its `logits` are known.
    pub(crate) fn settle_probe(&mut self, logits: &[f32]) -> bool {
        match &mut self.stage {
            Stage::Decode { depth, exit, leaving: false } => exit.after_probe(*depth, logits),
            _ => true,
        }
    }

    /// The depth of the row that leaves, and its criterion's values.
    pub(crate) fn exit_record(&mut self) -> (Depth, Vec<f64>) {
        match &mut self.stage {
            Stage::Prefill { .. } => (self.request.depth.max(), Vec::new()),
            Stage::Decode { depth, exit, .. } => (*depth, std::mem::take(&mut exit.values)),
        }
    }

    /// How many tokens were generated.
    pub(crate) fn generated(&self) -> usize {
        self.tokens.len() - self.request.prompt.len()
    }

    /// What the lane has cost so far.
    pub(crate) fn usage(&self) -> Usage {
        let (max, prompt) = (u64::from(self.request.depth.max()), self.request.prompt.len());
        Usage {
            prompt_tokens: prompt as u32,
            completion_tokens: self.generated() as u32,
            prompt_core_iterations: (prompt as u64 - 1) * max,
            completion_core_iterations: self.completion_core_iterations,
            completion_core_iterations_limit: self.generated() as u64 * max,
        }
    }

    /// Core iterations still owed at most.
    pub(crate) fn owed_core_iterations(&self) -> u64 {
        let max = u64::from(self.request.depth.max());
        let tokens_after = (self.request.max_tokens - self.generated()) as u64 - 1;
        let in_flight = match &self.stage {
            Stage::Prefill { depth, next } => {
                self.request.prompt.len() as u64 * (max - u64::from(*depth)) - *next as u64
            }
            Stage::Decode { depth, .. } => max - u64::from(*depth),
        };
        in_flight + tokens_after * max
    }
}
