//! One workload under every mode, round after round.

use anyhow::Result;
use windlass_engine::{Engine, EngineConfig};
use windlass_kernels::BLOCK_POSITIONS;
use windlass_model::Runner;

use super::mode::Mode;
use super::outcome::{Outcomes, run};
use super::progress::Progress;
use super::workload::Workload;

/// Runs `workload` under every mode in turn, `rounds` times, each round beginning with another mode. `progress` hears of every
/// run before it starts, and of every round when it is over. Gives the engine back, since it holds the weights.
pub(super) fn measure<R: Runner>(
    mut engine: Engine<R>,
    config: &EngineConfig,
    workload: &Workload,
    (modes, rounds): (&[Mode], usize),
    progress: &Progress,
) -> Result<(Engine<R>, Outcomes)> {
    let mut outcomes = Outcomes::new();
    let of_mode = |mode: Mode| EngineConfig {
        schedule: mode.schedule(),
        draft: mode.draft(config.draft),
        ..config.clone()
    };
    engine = engine.reconfigure(of_mode(Mode::Depth))?;
    // Not counted: touches, of every block of keys and values, the memory that all runs find in use.
    run(&mut engine, &workload.first(config.max_lanes).sparse(BLOCK_POSITIONS), Mode::Depth)?;
    for round in 0..rounds {
        for turn in 0..modes.len() {
            let mode = modes[(round + turn) % modes.len()];
            progress.run_starts(mode, round);
            engine = engine.reconfigure(of_mode(mode))?;
            let outcome = run(&mut engine, workload, mode)?;
            outcomes.entry(mode).or_default().push(outcome);
        }
        progress.round_ends(round, &outcomes)?;
    }
    Ok((engine, outcomes))
}
