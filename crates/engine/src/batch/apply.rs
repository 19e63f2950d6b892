//! Behind the coda: probes are settled, tokens taken, and what is done ends.

use windlass_model::Runner;

use super::{Batch, Departure, Wants};
use crate::event::{Event, FinishReason, TokenOutput};
use crate::lane::{NextRow, Progress};
use crate::launch::Phase;
use crate::memory::Memory;
use crate::sequence::Sequence;
use crate::shared::{Buffers, Shared};

impl Batch {
    /// Collects the coda launch that was started first, which is done. Settles probes, takes tokens, ends what is done.
    pub(crate) fn collect_coda<R: Runner>(&mut self, shared: &mut Shared<R>, events: &mut Vec<Event>) {
        let launch = self.under_way.pop_front().expect("a coda launch is under way");
        shared.runner.finish_coda(&mut shared.buffers.found);
        let busy = shared.runner.busy().map(|busy| busy.launch);
        let rows = launch.departures.iter().map(|departure| departure.count).sum();
        shared.record(Phase::Coda, rows, launch.decodes, launch.start, busy);
        let start = shared.clock.now();
        self.apply(&launch.departures, shared, events);
        self.close_ended(&mut shared.memory);
        let sampled = launch.departures.iter().filter(|departure| departure.wants != Wants::Nothing).count();
        shared.record(Phase::Sample, sampled, launch.decodes, start, None);
        self.spare.push(launch);
    }

    fn apply<R: Runner>(
        &mut self,
        departures: &[Departure],
        shared: &mut Shared<R>,
        events: &mut Vec<Event>,
    ) {
        // Out of `shared` for a while, since tokens are taken from them while memory changes.
        let mut buffers = std::mem::take(&mut shared.buffers);
        let Buffers { found, sampler, .. } = &mut buffers;
        let mut logits = found.logits.chunks_exact(shared.runner.config().vocabulary);
        let (mut most_likely, mut drawn) = (found.most_likely.iter(), found.drawn.iter());
        for departure in departures {
            let (token, logits) = match departure.wants {
                Wants::Nothing => (None, None),
                Wants::MostLikely => (most_likely.next().copied(), None),
                Wants::Drawn => (drawn.next().copied(), None),
                Wants::Logits => (None, logits.next()),
            };
            let has_found = departure.wants == Wants::Nothing || token.is_some() || logits.is_some();
            assert!(has_found, "the head found nothing for a row that wants something");
            let Some(index) = departure.lane else { continue };
            let lane = &mut self.lanes[index];
            if lane.is_over {
                continue;
            }
            if departure.is_guess {
                let token = token.expect("guesses are tokens");
                self.take_guess(index, departure.from, token, shared);
                continue;
            }
            let taken = token.map(|token| lane.take(token));
            let from_logits =
                logits.and_then(|logits| lane.settle_probe(logits).then(|| lane.draw(logits, sampler)));
            if let Some(output) = taken.or(from_logits) {
                self.emit(index, output, shared, events);
            }
            self.finish_group(index, departure.from + departure.count, shared);
        }
        shared.buffers = buffers;
    }

    /// Goes on after the group that ends at `end`, if one does. What is done of the prompt by then is kept for others.
    fn finish_group<R: Runner>(&mut self, lane: usize, end: usize, shared: &mut Shared<R>) {
        let grouping = shared.grouping();
        let Memory { tables, blocks, latents, .. } = &mut shared.memory;
        let lane = &mut self.lanes[lane];
        let Progress::Settled { group, .. } = &lane.progress else { return };
        if end < group.end {
            return;
        }
        let Sequence { request, .. } = &lane.sequence;
        if group.contains(&(request.prompt.len() - 1))
            && let Some(granularity) = lane.sequence.prefix_granularity(grouping.segment)
        {
            blocks.keep(request, granularity, &tables[lane.table]);
        }
        lane.finish_group(latents, grouping);
    }

    /// Completes the lane's next token, tells of it, and goes on after it, or ends the lane.
    fn emit<R: Runner>(
        &mut self,
        lane: usize,
        mut output: TokenOutput,
        shared: &mut Shared<R>,
        events: &mut Vec<Event>,
    ) {
        let index = lane;
        let lane = &mut self.lanes[index];
        (output.depth, output.exit_value, output.exit_values) = lane.exit_record();
        let request = &lane.sequence.request;
        output.is_stop = request.stops_at(output.token, &shared.runner.config().stop_tokens);
        if let Some(row) = lane.rows().first().filter(|_| lane.sequence.may_draft()) {
            self.drafting.count(row.depth, row.others_until(output.token));
        }
        let grouping = shared.grouping();
        let next = lane.push(output.token, output.depth, &mut shared.memory.latents, grouping);
        shared.counters.drafts_kept_total += u64::from(next == NextRow::Draft);
        let sequence = &lane.sequence;
        let reason = if output.is_stop {
            Some(FinishReason::Stop)
        } else {
            (sequence.generated() == sequence.request.max_tokens).then_some(FinishReason::Length)
        };
        events.push(Event::Token(sequence.id, output));
        if let Some(reason) = reason {
            events.push(Event::Finished(sequence.id, reason, sequence.usage()));
            lane.is_over = true;
        }
        if next == NextRow::NewAfterOthers {
            let from = self.lanes[index].sequence.settled();
            self.under_way.iter_mut().for_each(|launch| launch.forget(index, from..));
        }
    }
}
