//! What `windlass bench engine` measured, in numbers. Serialised, it is the object that `--json` prints.

use std::collections::BTreeMap;

use serde::Serialize;
use windlass_model::{Depth, KvPolicy};

use super::mode::Mode;
use super::outcome::{Outcome, Outcomes};
use super::rates::{BestRates, Rates};
use super::work::{PerWork, share_of_theoretical_gain};
use super::workload::Workload;

/// All that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) settings: Settings,
    pub(super) definitions: Definitions,
    pub(super) measurements: Vec<Measurement>,
    /// Those of the only measurement, where there is one only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) modes: Option<BTreeMap<Mode, ModeReport>>,
}

/// What it ran on.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    /// Threads of the computation.
    pub(super) threads: usize,
    /// Cores that this process may use.
    pub(super) cores: usize,
    /// Instruction set that the kernels use, or the GPU.
    pub(super) instructions: String,
    /// What decides the bits of its products.
    pub(super) arithmetic: String,
}

/// What was asked for.
#[derive(Debug, Serialize)]
pub(super) struct Settings {
    /// The model's folder; none for random weights.
    pub(super) model: Option<String>,
    /// As `--shape` takes it.
    pub(super) shape: String,
    pub(super) parameters: u64,
    pub(super) weights: String,
    /// Ranks.
    pub(super) tp: usize,
    pub(super) seed: u64,
    pub(super) prompt: usize,
    pub(super) kv: KvPolicy,
    pub(super) max_rows: usize,
    /// Parts that the model is cut into.
    pub(super) stages: usize,
    pub(super) coalesce: String,
    /// How mode `drafts` guesses tokens; none where it is not measured.
    pub(super) draft: Option<String>,
    pub(super) rounds: usize,
}

/// What figures mean that do not speak for themselves.
#[derive(Debug, Serialize)]
pub(super) struct Definitions {
    pub(super) share_of_theoretical_gain: &'static str,
    pub(super) share_at_own_rates: &'static str,
}

/// One workload under all modes.
#[derive(Debug, Serialize)]
pub(super) struct Measurement {
    pub(super) depths: String,
    pub(super) lanes: usize,
    pub(super) requests: usize,
    pub(super) tokens: usize,
    pub(super) mean_depth: f64,
    /// What prompts and first tokens take, and every token under `full-depth`.
    pub(super) deepest: Depth,
    pub(super) rows_needed: PerWork<u64>,
    pub(super) best_rates: BestRates,
    pub(super) modes: BTreeMap<Mode, ModeReport>,
}

/// One workload under one mode: the round that took the median time.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ModeReport {
    pub(super) tokens_per_second: f64,
    pub(super) share_of_theoretical_gain: f64,
    /// The same with prompts and generated tokens each at their own best rates.
    pub(super) share_at_own_rates: f64,
    /// Tokens per second over those of other modes of this measurement.
    pub(super) tokens_per_second_over: BTreeMap<Mode, f64>,
    pub(super) core_rows_per_tick: f64,
    pub(super) ticks: u32,
    pub(super) core_rows: u64,
    /// Positions that began on a guess of the token that they read.
    pub(super) drafts: u64,
    /// Those of them that had read the token that came.
    pub(super) drafts_kept: u64,
    pub(super) seconds: f64,
    pub(super) phases: Phases,
    /// Tokens per second of every round, in order.
    pub(super) rounds: Vec<f64>,
}

/// Where the time went.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Phases {
    pub(super) prelude: PhaseTime,
    pub(super) core: PhaseTime,
    /// With the head.
    pub(super) coda: PhaseTime,
    pub(super) sampling: PhaseTime,
    /// Outside of all launches: planning, bookkeeping.
    pub(super) rest: PhaseTime,
}

/// Time of one phase in all ticks together.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct PhaseTime {
    pub(super) milliseconds: f64,
    /// Of the whole run, from 0 to 1.
    pub(super) share: f64,
}

impl Report {
    pub(super) fn new(
        machine: Machine,
        settings: Settings,
        definitions: Definitions,
        measurements: Vec<Measurement>,
    ) -> Self {
        let modes = match measurements.as_slice() {
            [only] => Some(only.modes.clone()),
            _ => None,
        };
        Self { machine, settings, definitions, measurements, modes }
    }
}

impl Measurement {
    /// Sums up the rounds of each mode, at least one.
    pub(super) fn new((depths, lanes): (String, usize), workload: &Workload, outcomes: &Outcomes) -> Self {
        let mut rates = Rates::default();
        // Drafts make more rows of the same work, of which some come to nothing.
        let alike = outcomes.iter().filter(|(mode, _)| **mode != Mode::Drafts || outcomes.len() == 1);
        alike.flat_map(|(_, rounds)| rounds).for_each(|outcome| outcome.observe(&mut rates));
        let (needed, best) = (workload.needed(), rates.best());
        let medians: BTreeMap<Mode, &Outcome> =
            outcomes.iter().map(|(mode, rounds)| (*mode, median(rounds))).collect();
        let mode_report = |mode: Mode| ModeReport::new(mode, &medians, &outcomes[&mode], (&needed, &best));
        Self {
            depths,
            lanes,
            requests: workload.len(),
            tokens: workload.tokens(),
            mean_depth: workload.mean_depth(),
            deepest: workload.most(),
            rows_needed: needed,
            best_rates: best,
            modes: outcomes.keys().map(|&mode| (mode, mode_report(mode))).collect(),
        }
    }
}

impl ModeReport {
    fn new(
        mode: Mode,
        medians: &BTreeMap<Mode, &Outcome>,
        rounds: &[Outcome],
        (needed, best): (&PerWork<u64>, &BestRates),
    ) -> Self {
        let outcome = medians[&mode];
        let share = |rates| share_of_theoretical_gain(needed, &rates, outcome.seconds);
        let over = |peer: Mode| {
            let other = medians.get(&peer).filter(|_| peer != mode)?;
            Some((peer, outcome.tokens_per_second() / other.tokens_per_second()))
        };
        Self {
            tokens_per_second: outcome.tokens_per_second(),
            share_of_theoretical_gain: share(best.per_part()),
            share_at_own_rates: share(best.per_work()),
            tokens_per_second_over: Mode::PEERS.into_iter().filter_map(over).collect(),
            core_rows_per_tick: outcome.core_rows_per_tick(),
            ticks: outcome.ticks,
            core_rows: outcome.core_rows,
            drafts: outcome.drafts,
            drafts_kept: outcome.drafts_kept,
            seconds: outcome.seconds,
            phases: Phases::new(outcome),
            rounds: rounds.iter().map(Outcome::tokens_per_second).collect(),
        }
    }
}

impl Phases {
    fn new(outcome: &Outcome) -> Self {
        let time = |seconds: f64| PhaseTime { milliseconds: 1e3 * seconds, share: seconds / outcome.seconds };
        Self {
            prelude: time(outcome.phases.prelude),
            core: time(outcome.phases.core),
            coda: time(outcome.phases.coda),
            sampling: time(outcome.phases.sampling),
            rest: time(outcome.rest_seconds()),
        }
    }
}

/// The round of median time, the slower one of two.
fn median(rounds: &[Outcome]) -> &Outcome {
    let mut sorted: Vec<&Outcome> = rounds.iter().collect();
    sorted.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::outcome::{Launch, PhaseSeconds};
    use crate::commands::bench::work::RowKind;
    use std::time::Duration;
    use windlass_engine::{LaunchRecord, Phase};

    /// A run of 2 tokens in which the core took 3 iterations of 1 s: two of the prompt, one of the token after.
    fn outcome(seconds: f64) -> Outcome {
        let launch = |tick| {
            let (start, end) =
                (Duration::from_secs(u64::from(tick)), Duration::from_secs(u64::from(tick) + 1));
            let rows = Some(if tick < 2 { RowKind::Prompt } else { RowKind::Generated });
            Launch { tick, rows, record: LaunchRecord { phase: Phase::Core, rows: 1, start, end } }
        };
        let phases = PhaseSeconds { core: 3.0, ..PhaseSeconds::default() };
        let launches = (0..3).map(launch).collect();
        Outcome { tokens: 2, seconds, ticks: 3, core_rows: 3, phases, launches, ..Outcome::default() }
    }

    #[test]
    fn the_median_round_of_each_mode_is_compared() {
        let workload = Workload::new((1, 8), KvPolicy::Full, 2, vec![vec![2, 1]]);
        let rounds = |seconds: [f64; 3]| seconds.map(outcome).to_vec();
        let outcomes = BTreeMap::from([
            (Mode::Depth, rounds([4.0, 3.0, 9.0])),
            (Mode::Lockstep, rounds([8.0, 7.0, 1.0])),
        ]);
        let Measurement { modes, mean_depth, .. } = Measurement::new(("x".into(), 1), &workload, &outcomes);
        let [depth, lockstep] = [&modes[&Mode::Depth], &modes[&Mode::Lockstep]];
        assert_eq!((depth.seconds, lockstep.seconds, mean_depth), (4.0, 7.0, 1.5));
        assert_eq!((depth.tokens_per_second, depth.share_of_theoretical_gain), (0.5, 0.75));
        assert_eq!(depth.tokens_per_second_over, BTreeMap::from([(Mode::Lockstep, 7.0 / 4.0)]));
        assert_eq!(lockstep.tokens_per_second_over, BTreeMap::new());
        assert_eq!((depth.phases.core.milliseconds, depth.phases.rest.share), (3000.0, 0.25));
    }
}
