//! The steps of a tick that run rows: prelude and core, exits, coda and head, tokens.

use windlass_kernels::LatentChange;
use windlass_model::latent::fill_initial_latent;
use windlass_model::{Runner, Wanted};

use super::Engine;
use crate::event::{Event, FinishReason, TokenOutput};
use crate::exit::Verdict;
use crate::lane::{Span, Stage};
use crate::launch::Phase;
use crate::launch_rows::LaunchRows;
use crate::memory::Memory;
use crate::request::{Request, RequestId};
use crate::sampler::SamplerScratch;
use crate::sequence::Sequence;

/// What one tick hands from step to step; kept between ticks for its memory alone.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) plan: Vec<Span>,
    entering: Vec<Span>,
    departures: Vec<Departure>,
    rows: LaunchRows,
    tokens: Vec<u32>,
    initial: Vec<f32>,
    changes: Vec<LatentChange>,
    /// Rows of the coda launch that need logits, and those logits.
    wanted: Vec<u32>,
    logits: Vec<f32>,
    /// Rows of the coda launch that need the most likely token alone, and those tokens.
    greedy: Vec<u32>,
    most_likely: Vec<u32>,
    sampler: SamplerScratch,
    finished: Vec<RequestId>,
}

/// Rows on their way through the coda.
#[derive(Debug, Clone, Copy)]
struct Departure {
    span: Span,
    /// What the span's last row needs; other rows only leave coda K/V behind.
    wants: Wants,
}

/// What a row needs of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    Nothing,
    /// The most likely token: its request looks at nothing else.
    MostLikely,
    Logits,
}

impl Wants {
    /// What the next token of a request is drawn from.
    fn for_token(request: &Request) -> Self {
        let looks_at_logits = request.logprobs.is_some() || request.report_logits;
        if request.sampling.is_plainly_greedy() && !looks_at_logits { Self::MostLikely } else { Self::Logits }
    }
}

impl<R: Runner> Engine<R> {
    /// Prelude for the rows that enter, then one core iteration for all.
    pub(super) fn run_core(&mut self, work: &mut Work) {
        let Work { plan, entering, rows, tokens, initial, changes, .. } = work;
        let Memory { tables, blocks, .. } = &mut self.memory;
        for span in &*plan {
            let lane = &self.lanes[span.lane];
            lane.prepare(*span, &mut tables[lane.table], blocks);
        }
        entering.clear();
        entering.extend(plan.iter().filter(|span| self.lanes[span.lane].depth() == 0));
        if !entering.is_empty() {
            let start = self.clock.now();
            self.enter(entering, tokens, initial);
            rows.ends(&self.lanes, entering.iter().copied());
            self.counters.prelude_rows_total += rows.len() as u64;
            self.runner.prelude(tokens, initial, rows.launch(&self.memory.tables));
            self.record(Phase::Prelude, rows.len(), start);
        }
        rows.core(&self.lanes, plan);
        changes.clear();
        if rows.len() > 0 {
            let start = self.clock.now();
            self.counters.count_core_rows(rows.len());
            self.runner.start_core(rows.launch(&self.memory.tables));
            self.runner.finish_core(changes);
            self.record(Phase::Core, rows.len(), start);
        }
    }

    /// Tokens and initial latents of the rows that enter.
    fn enter(&self, entering: &[Span], tokens: &mut Vec<u32>, initial: &mut Vec<f32>) {
        let hidden = self.runner.config().hidden;
        tokens.clear();
        initial.clear();
        for span in entering {
            let Sequence { tokens: all, request, .. } = &self.lanes[span.lane].sequence;
            tokens.extend_from_slice(&all[span.positions()]);
            for position in span.positions() {
                let from = initial.len();
                initial.resize(from + hidden, 0.0);
                let (seed, scale) = (request.latent_seed, request.init_scale);
                fill_initial_latent(seed, position as u32, scale, &mut initial[from..]);
            }
        }
    }

    /// Counts the iteration and decides who goes through the coda now.
    pub(super) fn advance(&mut self, work: &mut Work) {
        let Work { plan, changes, departures, .. } = work;
        departures.clear();
        let mut changes = changes.iter();
        for &span in &*plan {
            let lane = &mut self.lanes[span.lane];
            let change = changes.by_ref().take(lane.iterating(span).count()).last();
            let generated = lane.sequence.generated();
            let token_from = Wants::for_token(&lane.sequence.request);
            match &mut lane.stage {
                Stage::Settled { group, last_depth, depth, next } => {
                    *next += span.count;
                    if *depth + 1 == *last_depth {
                        let is_last = generated == 0 && *next == lane.sequence.request.prompt.len();
                        let wants = if is_last { token_from } else { Wants::Nothing };
                        departures.push(Departure { span, wants });
                    } else if *next == group.end {
                        (*depth, *next) = (*depth + 1, group.start);
                    }
                }
                Stage::Decode { depth, exit, leaving } => {
                    *depth += 1;
                    match exit.after_core(*depth, change.expect("a decoding lane has a row")) {
                        Verdict::Iterate => {}
                        Verdict::Probe => departures.push(Departure { span, wants: Wants::Logits }),
                        Verdict::Leave => *leaving = Some(0),
                    }
                }
            }
        }
        let leave = self.scheduler.leave(&self.lanes, !departures.is_empty(), &self.costs);
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let (from, wants) = (lane.sequence.settled(), Wants::for_token(&lane.sequence.request));
            if let Stage::Decode { leaving: Some(waited), .. } = &mut lane.stage {
                *waited += 1;
                if leave {
                    let span = Span { lane: index, from, count: 1 };
                    departures.push(Departure { span, wants });
                }
            }
        }
    }

    /// Coda for the departing rows; logits, `[rows, vocabulary]`, or the most likely token for those that want them.
    pub(super) fn run_coda(&mut self, work: &mut Work) {
        let Work { departures, rows, wanted, logits, greedy, most_likely, .. } = work;
        logits.clear();
        most_likely.clear();
        if departures.is_empty() {
            return;
        }
        let start = self.clock.now();
        wanted.clear();
        greedy.clear();
        let mut count = 0;
        for departure in &*departures {
            count += departure.span.count as u32;
            match departure.wants {
                Wants::Nothing => {}
                Wants::MostLikely => greedy.push(count - 1),
                Wants::Logits => wanted.push(count - 1),
            }
        }
        rows.ends(&self.lanes, departures.iter().map(|departure| departure.span));
        self.counters.coda_rows_total += rows.len() as u64;
        let head = Wanted { logits: wanted, most_likely: greedy };
        self.runner.start_coda(rows.launch(&self.memory.tables), head);
        self.runner.finish_coda(logits, most_likely);
        self.record(Phase::Coda, rows.len(), start);
    }

    /// Settles probes, draws tokens, ends what is done.
    pub(super) fn apply(&mut self, work: &mut Work, events: &mut Vec<Event>) {
        let Work { departures, logits, wanted, greedy, most_likely, sampler, finished, .. } = work;
        if departures.is_empty() {
            return;
        }
        let start = self.clock.now();
        let mut logits = logits.chunks_exact(self.runner.config().vocabulary);
        let mut most_likely = most_likely.iter();
        finished.clear();
        for departure in &*departures {
            let index = departure.span.lane;
            let lane = &mut self.lanes[index];
            let output = match departure.wants {
                Wants::Nothing => None,
                Wants::MostLikely => {
                    let token = *most_likely.next().expect("a token per row that wants it");
                    Some(TokenOutput { token, ..TokenOutput::default() })
                }
                Wants::Logits => {
                    let logits = logits.next().expect("a row of logits per row that wants them");
                    lane.settle_probe(logits).then(|| lane.draw(logits, sampler))
                }
            };
            if let Some(output) = output {
                self.emit(index, output, events, finished);
            }
            self.finish_group(departure.span);
        }
        for id in finished.drain(..) {
            self.cancel(id);
        }
        self.record(Phase::Sample, wanted.len() + greedy.len(), start);
    }

    /// Goes on after the group that `span` is the end of, if it is. What is done of the prompt by then is kept for others.
    fn finish_group(&mut self, span: Span) {
        let grouping = self.grouping();
        let Memory { tables, blocks, latents, .. } = &mut self.memory;
        let lane = &mut self.lanes[span.lane];
        let Stage::Settled { group, .. } = &lane.stage else { return };
        if span.positions().end < group.end {
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

    /// Completes the lane's next token, tells of it, and goes on after it.
    fn emit(
        &mut self,
        index: usize,
        mut output: TokenOutput,
        events: &mut Vec<Event>,
        finished: &mut Vec<RequestId>,
    ) {
        let grouping = self.grouping();
        let lane = &mut self.lanes[index];
        (output.depth, output.exit_value, output.exit_values) = lane.exit_record();
        let request = &lane.sequence.request;
        output.is_stop = request.stop_tokens.contains(&output.token)
            || (!request.ignore_model_stops && self.runner.config().stop_tokens.contains(&output.token));
        lane.push(output.token, output.depth, grouping);
        let sequence = &lane.sequence;
        let reason = if output.is_stop {
            Some(FinishReason::Stop)
        } else {
            (sequence.generated() == sequence.request.max_tokens).then_some(FinishReason::Length)
        };
        events.push(Event::Token(sequence.id, output));
        if let Some(reason) = reason {
            events.push(Event::Finished(sequence.id, reason, sequence.usage()));
            finished.push(sequence.id);
        }
    }
}
