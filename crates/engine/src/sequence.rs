//! A request and how far it has come: what survives when its lane is taken away.

use std::cmp::Reverse;
use std::ops::Range;
use std::time::Duration;

use windlass_kernels::{BLOCK_POSITIONS, Draw, LogitChange};
use windlass_model::{Depth, DepthPolicy};

use crate::event::Usage;
use crate::request::{EmittedToken, Request, RequestId};
use crate::sampler::Sampler;
use crate::waiting::Turn;

/// A request with its tokens so far. It waits, or is served by a lane; taken off that lane it is served again from the
/// tokens and depths kept here, to the same bits.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) id: RequestId,
    pub(crate) request: Request,
    /// How many requests came before.
    arrival: u64,
    /// Prompt and generated tokens.
    pub(crate) tokens: Vec<u32>,
    /// Iterations that each generated token took.
    depths: Vec<Depth>,
    pub(crate) sampler: Sampler,
    /// When it has to be done, by the engine's clock.
    deadline: Option<Duration>,
    completion_core_iterations: u64,
}

impl Sequence {
    /// A sequence that goes on behind the request's emitted tokens.
    pub(crate) fn new(id: RequestId, request: Request, arrival: u64, now: Duration) -> Self {
        let mut tokens = Vec::with_capacity(request.prompt.len() + request.max_tokens);
        tokens.extend_from_slice(&request.prompt);
        let mut sequence = Self {
            id,
            arrival,
            tokens,
            depths: Vec::with_capacity(request.max_tokens),
            sampler: Sampler::new(request.sampling.clone(), &request.prompt),
            deadline: request.timeout.map(|timeout| now.saturating_add(timeout)),
            completion_core_iterations: 0,
            request,
        };
        for EmittedToken { token, depth } in std::mem::take(&mut sequence.request.emitted) {
            sequence.sampler.note(token);
            sequence.push(token, depth);
        }
        sequence
    }

    /// What the token at `position` is drawn by, after the tokens that are known; appends to `changes` how logits change before.
    pub(crate) fn draw_at(&self, position: usize, changes: &mut Vec<LogitChange>) -> Draw {
        self.sampler.draw(position as u32, changes)
    }

    /// When it has its turn among others.
    pub(crate) fn turn(&self) -> Turn {
        (Reverse(self.request.priority), self.arrival)
    }

    /// Whether its deadline has passed.
    pub(crate) fn is_late(&self, now: Duration) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// How many tokens were generated.
    pub(crate) fn generated(&self) -> usize {
        self.depths.len()
    }

    /// Appends a generated token that took `depth` iterations.
    pub(crate) fn push(&mut self, token: u32, depth: Depth) {
        self.tokens.push(token);
        self.depths.push(depth);
        self.completion_core_iterations += u64::from(depth);
    }

    /// Positions whose depth is known: the prompt, and every generated token that was read to generate another. A lane
    /// runs these first.
    pub(crate) fn settled(&self) -> usize {
        self.tokens.len() - usize::from(self.generated() > 0)
    }

    /// Iterations that a settled `position` takes.
    pub(crate) fn depth_at(&self, position: usize) -> Depth {
        let generated =
            (position + 1).checked_sub(self.request.prompt.len()).filter(|generated| *generated > 0);
        generated.map_or(self.request.depth.max(), |generated| self.depths[generated])
    }

    /// The settled positions from `from` on that move through the depths together.
    ///
    /// Where every depth has its own slot, it makes no difference which do, and `most` bounds how many. Where slots
    /// are overwritten, a position must find in them what it found the first time: prompt positions those of their segment,
    /// generated ones what their predecessors left in the end.
    pub(crate) fn group(&self, from: usize, segment: Option<usize>, most: usize) -> Range<usize> {
        let (prompt, settled) = (self.request.prompt.len(), self.settled());
        let end = if !self.overwrites() {
            settled.min(from + most)
        } else if from < prompt {
            segment.map_or(prompt, |segment| prompt.min((from / segment + 1) * segment))
        } else {
            from + 1
        };
        from..end
    }

    /// Whether a position's slots hold only its last values once it is done.
    pub(crate) fn overwrites(&self) -> bool {
        self.request.kv.overwrites(self.request.depth.max())
    }

    /// Whether positions behind the last token may run on guesses of what they read: every depth has its own slot, and no row
    /// is probed, since in the coda it would read positions that are not done.
    pub(crate) fn may_draft(&self) -> bool {
        let is_probed = match &self.request.depth {
            DepthPolicy::Fixed(_) => false,
            DepthPolicy::Adaptive(adaptive) => adaptive.criterion.needs_logits(),
        };
        !self.overwrites() && !is_probed
    }

    /// Of how many positions a cached prefix must be a multiple; none where no prefix can be reused.
    pub(crate) fn prefix_granularity(&self, segment: Option<usize>) -> Option<usize> {
        if self.overwrites() { segment } else { Some(BLOCK_POSITIONS) }
    }

    /// K/V blocks that the settled positions and the next one hold at most.
    pub(crate) fn blocks_now(&self) -> usize {
        let slots = 1 + self.request.kv.slots(self.request.depth.max()) as usize;
        (self.settled() + 1).min(self.request.positions()).div_ceil(BLOCK_POSITIONS) * slots
    }

    /// What the request has cost so far, work done twice not counted.
    pub(crate) fn usage(&self) -> Usage {
        self.request.usage(self.generated(), self.completion_core_iterations)
    }

    /// Core iterations that positions `from` on still owe at most, none of them begun.
    pub(crate) fn owed_from(&self, from: usize) -> u64 {
        self.request.positions().saturating_sub(from) as u64 * u64::from(self.request.depth.max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_model::KvPolicy;

    fn sequence(kv: KvPolicy) -> Sequence {
        let request = Request::greedy(vec![0; 40], 8, DepthPolicy::Fixed(4), kv);
        let mut sequence = Sequence::new(RequestId(1), request, 0, Duration::ZERO);
        [4, 2, 3].into_iter().for_each(|depth| sequence.push(9, depth));
        sequence
    }

    fn groups(kv: KvPolicy, segment: Option<usize>, most: usize) -> Vec<Range<usize>> {
        let sequence = sequence(kv);
        let mut groups = Vec::new();
        let mut from = 0;
        while from < sequence.settled() {
            groups.push(sequence.group(from, segment, most));
            from = groups[groups.len() - 1].end;
        }
        groups
    }

    #[test]
    fn settled_positions_keep_their_depths() {
        let sequence = sequence(KvPolicy::Full);
        assert_eq!(sequence.settled(), 42);
        assert_eq!([0, 39, 40, 41].map(|position| sequence.depth_at(position)), [4, 4, 2, 3]);
    }

    #[test]
    fn all_positions_move_together_where_nothing_is_overwritten() {
        assert_eq!(groups(KvPolicy::Full, Some(16), 41), [0..41, 41..42]);
        assert_eq!(groups(KvPolicy::Ring(4), None, 30), [0..30, 30..42]);
    }

    #[test]
    fn overwritten_slots_are_replayed_segment_by_segment_and_token_by_token() {
        assert_eq!(groups(KvPolicy::Ring(1), None, 30), [0..40, 40..41, 41..42]);
        assert_eq!(groups(KvPolicy::Anchor(2), Some(16), 30), [0..16, 16..32, 32..40, 40..41, 41..42]);
    }
}
