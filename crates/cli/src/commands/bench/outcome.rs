//! One run of a workload under one scheduler.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Result, ensure};
use windlass_engine::{Engine, Event, LaunchRecord, Phase, RequestId};
use windlass_model::Runner;

use super::mode::Mode;
use super::rates::Rates;
use super::work::{Part, RowKind};
use super::workload::Workload;

/// What a run took, and what ran in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    pub(super) tokens: usize,
    /// From the first tick to the end of the last.
    pub(super) seconds: f64,
    pub(super) ticks: u32,
    /// Rows through the core, one each iteration.
    pub(super) core_rows: u64,
    /// Positions that began on a guess, and those of them whose guess came true.
    pub(super) drafts: u64,
    pub(super) drafts_kept: u64,
    pub(super) phases: PhaseSeconds,
    /// In order.
    pub(super) launches: Vec<Launch>,
}

/// The rounds of each mode.
pub(super) type Outcomes = BTreeMap<Mode, Vec<Outcome>>;

/// A launch with what is known of it from outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Launch {
    pub(super) tick: u32,
    /// Whose rows took part; none where the tick had both.
    pub(super) rows: Option<RowKind>,
    pub(super) record: LaunchRecord,
}

/// Seconds that launches of each phase took together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PhaseSeconds {
    pub(super) prelude: f64,
    pub(super) core: f64,
    pub(super) coda: f64,
    pub(super) sampling: f64,
}

impl Outcome {
    pub(super) fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.seconds
    }

    pub(super) fn core_rows_per_tick(&self) -> f64 {
        self.core_rows as f64 / f64::from(self.ticks.max(1))
    }

    /// Time outside of all launches; none where stages computed side by side for longer than all of it took.
    pub(super) fn rest_seconds(&self) -> f64 {
        let PhaseSeconds { prelude, core, coda, sampling } = self.phases;
        (self.seconds - prelude - core - coda - sampling).max(0.0)
    }

    /// Counts a launch of the current tick.
    fn count(&mut self, record: LaunchRecord, rows: Option<RowKind>) {
        let seconds = seconds(record);
        match record.phase {
            Phase::Prelude => self.phases.prelude += seconds,
            Phase::Core => {
                self.phases.core += seconds;
                self.core_rows += u64::from(record.rows);
            }
            Phase::Coda => self.phases.coda += seconds,
            Phase::Sample => self.phases.sampling += seconds,
        }
        self.launches.push(Launch { tick: self.ticks, rows, record });
    }

    /// Tells `rates` of every launch.
    pub(super) fn observe(&self, rates: &mut Rates) {
        for &Launch { rows, record, .. } in &self.launches {
            let part = match record.phase {
                Phase::Prelude => Part::Prelude,
                Phase::Core => Part::Core,
                Phase::Coda => Part::Coda,
                Phase::Sample => continue,
            };
            if record.rows > 0 {
                rates.observe(part, rows, record.rows, seconds(record));
            }
        }
    }
}

fn seconds(launch: LaunchRecord) -> f64 {
    (launch.end - launch.start).as_secs_f64()
}

/// Runs all requests of `workload`, submitted at once, on an idle engine.
pub(super) fn run<R: Runner>(engine: &mut Engine<R>, workload: &Workload, mode: Mode) -> Result<Outcome> {
    for (id, request) in workload.requests(mode.has_exits()) {
        engine.submit(id, request)?;
    }
    let mut outcome = Outcome::default();
    let mut lanes = Lanes::default();
    let mut events = Vec::new();
    let start = Instant::now();
    while !engine.is_idle() {
        engine.tick(&mut events);
        let rows = lanes.rows(engine.load().running, &events);
        engine.launches().iter().for_each(|launch| outcome.count(*launch, rows));
        outcome.ticks += 1;
        outcome.tokens += events.iter().filter(|event| matches!(event, Event::Token(..))).count();
        lanes.apply(&events);
        events.clear();
    }
    outcome.seconds = start.elapsed().as_secs_f64();
    let load = engine.load();
    (outcome.drafts, outcome.drafts_kept) = (load.drafts_total, load.drafts_kept_total);
    let (tokens, expected, preemptions) = (outcome.tokens, workload.tokens(), load.preemptions_total);
    ensure!(
        tokens == expected && preemptions == 0,
        "{tokens} tokens of {expected}, {preemptions} preemptions"
    );
    Ok(outcome)
}

/// Lanes past their prompts, known from events.
#[derive(Debug, Default)]
struct Lanes {
    decoding: BTreeSet<RequestId>,
}

impl Lanes {
    /// Whose rows a tick ran that gave `events` and left `running` lanes.
    fn rows(&self, running: usize, events: &[Event]) -> Option<RowKind> {
        let finished = events.iter().filter(|event| matches!(event, Event::Finished(..))).count();
        match (self.decoding.len(), running + finished) {
            (0, _) => Some(RowKind::Prompt),
            (decoding, all) if decoding == all => Some(RowKind::Generated),
            _ => None,
        }
    }

    fn apply(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Token(id, _) => self.decoding.insert(*id),
                Event::Finished(id, ..) => self.decoding.remove(id),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use windlass_engine::{FinishReason, TokenOutput, Usage};

    fn token(id: u64) -> Event {
        Event::Token(RequestId(id), TokenOutput::default())
    }

    fn end(id: u64) -> Event {
        Event::Finished(RequestId(id), FinishReason::Length, Usage::default())
    }

    #[test]
    fn a_tick_s_rows_are_told_by_the_lanes_that_have_tokens() {
        let mut lanes = Lanes::default();
        let (prompt, generated) = (Some(RowKind::Prompt), Some(RowKind::Generated));
        // Two lanes, one of which comes to its first token before the other; when it ends a third one opens.
        let ticks = [
            (2, vec![], prompt),
            (2, vec![token(1)], prompt),
            (2, vec![token(2)], None),
            (1, vec![token(1), end(1)], generated),
            (2, vec![token(2)], None),
            (1, vec![end(2)], None),
        ];
        for (running, events, expected) in ticks {
            assert_eq!(lanes.rows(running, &events), expected, "{events:?}");
            lanes.apply(&events);
        }
    }

    #[test]
    fn launches_are_added_up_by_phase_and_observed_by_rows() {
        let mut outcome = Outcome::default();
        let ticks = [Some(RowKind::Prompt), None, Some(RowKind::Generated), Some(RowKind::Generated)];
        for (rows, kind) in (1..).zip(ticks) {
            let record = |phase, milliseconds: u64| LaunchRecord {
                phase,
                rows,
                start: Duration::from_millis(7),
                end: Duration::from_millis(7 + milliseconds),
            };
            outcome.count(record(Phase::Core, 4), kind);
            outcome.count(record(Phase::Sample, 1), kind);
            outcome.ticks += 1;
        }
        outcome.seconds = 0.03;
        assert_eq!((outcome.core_rows, outcome.core_rows_per_tick()), (10, 2.5));
        assert!((outcome.phases.core - 0.016).abs() < 1e-12 && (outcome.rest_seconds() - 0.01).abs() < 1e-12);
        let mut rates = Rates::default();
        outcome.observe(&mut rates);
        let best = rates.best().own;
        assert_eq!(best.prompt.core.map(|best| (best.rows, best.launches)), Some((1, 1)));
        assert_eq!(best.generated.core.map(|best| (best.rows, best.launches)), Some((4, 2)));
        assert_eq!(best.generated.coda, None);
    }
}
