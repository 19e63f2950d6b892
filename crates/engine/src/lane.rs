//! One sequence being served.

mod drafts;

use std::ops::Range;

use windlass_kernels::{BLOCK_POSITIONS, KvTable, LatentChange, Stop};
use windlass_model::Depth;

use crate::blocks::Blocks;
use crate::event::TokenOutput;
use crate::logprobs::logprobs;
use crate::memory::Place;
use crate::pool::Pool;
use crate::row::{Row, RowState};
use crate::sampler::SamplerScratch;
use crate::sequence::Sequence;
pub(crate) use drafts::NextRow;

/// A sequence with its memory: a table of K/V blocks, and rows of the latent buffer for positions in flight.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) sequence: Sequence,
    /// Index of its block table; the table itself lives beside the others.
    pub(crate) table: usize,
    /// While positions move together one row for each of the largest group, in decode one for each row.
    latents: Vec<u32>,
    pub(crate) progress: Progress,
    /// Whether nobody waits for it any more. It stays until nothing of it is under way.
    pub(crate) is_over: bool,
}

/// How far a lane's positions in flight are.
#[derive(Debug)]
pub(crate) enum Progress {
    /// A group of settled positions moves depth by depth: all have completed `depth` or are done, those before `next` one
    /// more.
    Settled {
        /// The positions.
        group: Range<usize>,
        /// The most iterations that any of them takes.
        last_depth: Depth,
        /// Iterations that all positions have completed, or as many as they take.
        depth: Depth,
        /// First position that has yet to run at this depth.
        next: usize,
    },
    /// The last token's position iterates, the first of these; behind it drafts may, one for each position that follows.
    Decode(Vec<Row>),
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
    pub(crate) fn positions(&self) -> Range<usize> {
        self.from..self.from + self.count
    }
}

/// What the engine offers a lane, and how it groups positions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grouping {
    /// Positions of a segment that moves together where slots are overwritten; none for whole prompts.
    pub(crate) segment: Option<usize>,
    /// Most positions that move together where it makes no difference.
    pub(crate) most: usize,
    /// Length of a row of logits.
    pub(crate) vocabulary: usize,
}

impl Lane {
    /// A lane for a sequence, in the memory taken for it.
    pub(crate) fn open(sequence: Sequence, place: Place, grouping: Grouping) -> Self {
        let Place { table, latents, reused } = place;
        let progress = Progress::after(&sequence, reused, grouping);
        Self { sequence, table, latents, progress, is_over: false }
    }

    /// Gives all memory back; what is left is the sequence.
    pub(crate) fn close(self, table: &mut KvTable, blocks: &mut Blocks, latents: &mut Pool) -> Sequence {
        blocks.release(table);
        self.latents.into_iter().for_each(|row| latents.release(row));
        self.sequence
    }

    /// Iterations completed by the positions that run next; where the lane decodes, by its first row.
    pub(crate) fn depth(&self) -> Depth {
        match &self.progress {
            Progress::Settled { depth, .. } => *depth,
            Progress::Decode(rows) => rows[0].depth,
        }
    }

    /// Iterations completed by `position`, which is in flight.
    pub(crate) fn depth_of(&self, position: usize) -> Depth {
        self.row(position).map_or_else(|| self.depth(), |row| row.depth)
    }

    /// The rows that decode, if the lane does: the position of the last token, and drafts behind it.
    pub(crate) fn rows(&self) -> &[Row] {
        match &self.progress {
            Progress::Settled { .. } => &[],
            Progress::Decode(rows) => rows,
        }
    }

    /// The same, to be changed.
    pub(crate) fn rows_mut(&mut self) -> &mut [Row] {
        match &mut self.progress {
            Progress::Settled { .. } => &mut [],
            Progress::Decode(rows) => rows,
        }
    }

    /// The row of a position that decodes.
    fn row(&self, position: usize) -> Option<&Row> {
        self.rows().get(position.checked_sub(self.sequence.settled())?)
    }

    /// The same, to be changed.
    pub(crate) fn row_mut(&mut self, position: usize) -> Option<&mut Row> {
        let index = position.checked_sub(self.sequence.settled())?;
        self.rows_mut().get_mut(index)
    }

    /// The row of the last token's position, if the lane decodes.
    fn first(&self) -> Option<&Row> {
        self.rows().first()
    }

    /// Whether the lane's rows iterate or wait to leave.
    pub(crate) fn decodes(&self) -> bool {
        self.first().is_some()
    }

    /// Ticks that the lane's first row has waited to leave, if it does.
    pub(crate) fn waited(&self) -> Option<u32> {
        match self.first()?.state {
            RowState::Waiting(waited) => Some(waited),
            RowState::Iterates | RowState::Probed | RowState::Departed => None,
        }
    }

    /// Whether the lane decodes and its first row has begun to iterate.
    pub(crate) fn is_under_way(&self) -> bool {
        self.first().is_some_and(|row| row.depth > 0)
    }

    /// Whether a prompt's or a replay's positions have yet to run, of those that move together now.
    pub(crate) fn has_prompt_to_run(&self) -> bool {
        matches!(&self.progress, Progress::Settled { group, next, .. } if *next < group.end)
    }

    /// Whether the lane decodes and its first row iterates, or does as soon as it was probed.
    pub(crate) fn goes_on(&self) -> bool {
        self.first().is_some_and(Row::goes_on)
    }

    /// What `position` reads, which is in flight.
    pub(crate) fn token(&self, position: usize) -> u32 {
        self.row(position).map_or_else(|| self.sequence.tokens[position], |row| row.token)
    }

    /// The row of the latent buffer that belongs to `position`.
    pub(crate) fn latent(&self, position: usize) -> u32 {
        match &self.progress {
            Progress::Settled { group, .. } => self.latents[position - group.start],
            Progress::Decode(_) => self.latents[position - self.sequence.settled()],
        }
    }

    /// The positions of `span` that take another iteration.
    pub(crate) fn iterating(&self, span: Span) -> impl Iterator<Item = usize> {
        let depth = self.depth_of(span.from);
        span.positions().filter(move |&position| self.decodes() || self.sequence.depth_at(position) > depth)
    }

    /// The table slot that core layers write for `position` at its depth.
    pub(crate) fn core_slot(&self, position: usize) -> u32 {
        self.sequence.request.kv.slot(self.depth_of(position)) + 1
    }

    /// Blocks that a launch of `span` at its depth writes to and the table lacks.
    pub(crate) fn blocks_missing(&self, span: Span, table: &KvTable) -> usize {
        let missing = |slot| {
            let first = span.from / BLOCK_POSITIONS * BLOCK_POSITIONS;
            let blocks = (first..span.from + span.count).step_by(BLOCK_POSITIONS);
            blocks.filter(|&position| table.block(slot, position).is_none()).count()
        };
        missing(self.core_slot(span.from)) + if self.depth_of(span.from) == 0 { missing(0) } else { 0 }
    }

    /// Takes the blocks that a launch of `span` at its depth writes to, and marks its positions as written.
    pub(crate) fn prepare(&self, span: Span, table: &mut KvTable, blocks: &mut Blocks) {
        let (slot, depth) = (self.core_slot(span.from), self.depth_of(span.from));
        let top_slot = self.sequence.request.kv.slots(depth + 1);
        for position in self.iterating(span) {
            if depth == 0 {
                ensure_block(0, position, table, blocks);
            }
            ensure_block(slot, position, table, blocks);
            table.set_top_slot(position, top_slot);
        }
    }

    /// Goes on with what follows the group that is done, and frees the rows that are not needed any more.
    pub(crate) fn finish_group(&mut self, latents: &mut Pool, grouping: Grouping) {
        let Progress::Settled { group, .. } = &self.progress else {
            panic!("a lane that decodes has no group")
        };
        self.progress = Progress::after(&self.sequence, group.end, grouping);
        if let Progress::Decode(rows) = &self.progress {
            self.latents.drain(1..).for_each(|row| latents.release(row));
            self.latents.reserve(rows.capacity());
        }
    }

    /// By what change of its latent the row of `position` stops in the next core launch.
    pub(crate) fn stop(&self, position: usize) -> Stop {
        self.row(position).map_or(Stop::Never, |row| row.exit.stop(row.depth + 1))
    }

    /// Whether the row of `position` stops at the depth that it has `completed` with this change. Then it has not gone on from
    /// there: what it took part in since, where launches run ahead, has changed nothing.
    pub(crate) fn stops_at(
        &mut self,
        position: usize,
        completed: Depth,
        change: &LatentChange,
        table: &mut KvTable,
    ) -> bool {
        let kv = self.sequence.request.kv;
        let row = self.row_mut(position).expect("only a row that decodes stops by its change");
        if !row.exit.after_core(completed, change) {
            return false;
        }
        if row.state == RowState::Iterates {
            row.state = RowState::Waiting(0);
        }
        if row.depth != completed {
            row.depth = completed;
            table.set_top_slot(position, kv.slots(completed));
        }
        true
    }

    /// Whether the lane's first row leaves, now that its `logits` are known.
    pub(crate) fn settle_probe(&mut self, logits: &[f32]) -> bool {
        let Some(row) = self.rows_mut().first_mut() else { return true };
        let leaves = row.state != RowState::Probed || row.exit.after_probe(row.depth, logits);
        if !leaves {
            row.state = RowState::Iterates;
        }
        leaves
    }

    /// Takes a token that was drawn elsewhere.
    pub(crate) fn take(&mut self, token: u32) -> TokenOutput {
        self.sequence.sampler.note(token);
        TokenOutput { token, ..TokenOutput::default() }
    }

    /// Draws the next token from the row's `logits`, and reports of them what was asked for.
    pub(crate) fn draw(&mut self, logits: &[f32], scratch: &mut SamplerScratch) -> TokenOutput {
        let Sequence { sampler, tokens, request, .. } = &mut self.sequence;
        let token = sampler.sample(logits, tokens.len() as u32, scratch);
        let (logprob, top_logprobs) =
            request.logprobs.map_or_else(Default::default, |count| logprobs(logits, token, count));
        let logits = request.report_logits.then(|| logits.to_vec());
        TokenOutput { token, logprob, top_logprobs, logits, ..TokenOutput::default() }
    }

    /// The depth of the row that leaves, its criterion's last value, and all of them if they were kept.
    pub(crate) fn exit_record(&mut self) -> (Depth, Option<f64>, Vec<f64>) {
        let prompt_depth = self.sequence.request.depth.max();
        match self.rows_mut().first_mut() {
            None => (prompt_depth, None, Vec::new()),
            Some(Row { depth, exit, .. }) => (*depth, exit.value, std::mem::take(&mut exit.values)),
        }
    }

    /// Core iterations still owed at most.
    pub(crate) fn owed_core_iterations(&self) -> u64 {
        match &self.progress {
            Progress::Settled { group, depth, next, .. } => {
                let done = group.len() as u64 * u64::from(*depth) + (*next - group.start) as u64;
                self.sequence.owed_from(group.start).saturating_sub(done)
            }
            Progress::Decode(rows) => {
                self.sequence.owed_from(self.sequence.settled()).saturating_sub(u64::from(rows[0].depth))
            }
        }
    }
}

impl Progress {
    /// What a lane does whose positions before `done` are done.
    fn after(sequence: &Sequence, done: usize, grouping: Grouping) -> Self {
        if done < sequence.settled() {
            let group = sequence.group(done, grouping.segment, grouping.most);
            let last_depth = group.clone().map(|position| sequence.depth_at(position)).max();
            let last_depth = last_depth.expect("a group has a position");
            return Self::Settled { next: group.start, group, last_depth, depth: 0 };
        }
        let last = *sequence.tokens.last().expect("a prompt has a token");
        // A draft more for each iteration is most that there can be, unless many are done and wait for those before them.
        let most = if sequence.may_draft() { 1 + sequence.request.depth.max() as usize } else { 1 };
        let mut rows = Vec::with_capacity(most);
        rows.push(Row::new(sequence, 0, last, grouping.vocabulary));
        Self::Decode(rows)
    }
}

fn ensure_block(slot: u32, position: usize, table: &mut KvTable, blocks: &mut Blocks) {
    if table.block(slot, position).is_none() {
        table.set_block(slot, position, blocks.take());
    }
}

/// Rows of the latent buffer that the largest group of a sequence takes, whose first `done` positions are done; one if it
/// has none.
pub(crate) fn latents_needed(sequence: &Sequence, done: usize, grouping: Grouping) -> usize {
    let (mut from, mut largest) = (done, 1);
    while from < sequence.settled() {
        let group = sequence.group(from, grouping.segment, grouping.most);
        largest = largest.max(group.len());
        from = group.end;
    }
    largest
}
