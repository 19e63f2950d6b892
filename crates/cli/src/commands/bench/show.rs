//! A report for people, in pieces that are written as soon as they are known.

use std::io::Write;

use anyhow::Result;
use comfy_table::Table;

use super::mode::Mode;
use super::rates::{BestRate, BestRates};
use super::report::{Definitions, Machine, Measurement, ModeReport, PhaseTime, Phases, Settings};
use super::work::PerPart;
use crate::table::{align, table};

/// Writes what will be measured, and on what.
pub(super) fn show_settings(machine: &Machine, settings: &Settings, mut to: impl Write) -> Result<()> {
    let Machine { threads, cores, instructions, .. } = machine;
    let Settings { model, shape, parameters, seed, weights, tp, prompt, max_rows, .. } = settings;
    let Settings { coalesce, draft, rounds, .. } = settings;
    let ranks = if *tp == 1 { String::new() } else { format!(" on {tp} ranks") };
    let (name, millions) = (model.as_deref().unwrap_or("random weights"), *parameters as f64 / 1e6);
    writeln!(to, "{name}: {shape}, {millions:.1} M parameters in {weights}{ranks}")?;
    let draft = draft.as_ref().map_or_else(String::new, |draft| format!(", draft {draft}"));
    writeln!(
        to,
        "{threads} of {cores} cores, {instructions}; prompts of {prompt}, at most {max_rows} rows a tick, coalesce {coalesce}{draft}, seed {seed}"
    )?;
    writeln!(to, "medians of {rounds} rounds, in each of which all modes run in turn")?;
    Ok(())
}

/// Writes one measurement.
pub(super) fn show_measurement(measurement: &Measurement, mut to: impl Write) -> Result<()> {
    writeln!(to, "\n{}", title(measurement))?;
    writeln!(to, "{}", modes(measurement))?;
    writeln!(to, "{}", phases(measurement))?;
    writeln!(to, "best rates, ms a row: {}", best_rates(&measurement.best_rates))?;
    Ok(())
}

/// Writes what the figures mean.
pub(super) fn show_definitions(definitions: &Definitions, mut to: impl Write) -> Result<()> {
    writeln!(to, "\nshare of gain: {}", definitions.share_of_theoretical_gain)?;
    writeln!(to, "at own rates: {}", definitions.share_at_own_rates)?;
    Ok(())
}

/// What a measurement is called, in the table and in the trace.
pub(super) fn title(measurement: &Measurement) -> String {
    let Measurement { depths, lanes, requests, tokens, mean_depth, .. } = measurement;
    format!(
        "depths {depths}, {lanes} lanes: {requests} requests, {tokens} tokens, mean depth {mean_depth:.1}"
    )
}

fn modes(measurement: &Measurement) -> Table {
    let peers: Vec<Mode> =
        measurement.modes.keys().copied().filter(|mode| Mode::PEERS.contains(mode)).collect();
    let mut header = vec!["mode".to_owned(), "tokens/s".to_owned()];
    header.extend(peers.iter().map(|peer| format!("over {}", peer.name())));
    header.extend(
        ["share of gain", "at own rates", "core rows/tick", "ticks", "core rows", "drafts", "kept"]
            .map(str::to_owned),
    );
    let mut table = table(header);
    for (mode, report) in &measurement.modes {
        let over =
            |peer| report.tokens_per_second_over.get(peer).map_or_else(String::new, |x| format!("{x:.2}"));
        let mut cells = vec![mode.name().to_owned(), format!("{:.1}", report.tokens_per_second)];
        cells.extend(peers.iter().map(over));
        cells.push(format!("{:.3}", report.share_of_theoretical_gain));
        cells.push(format!("{:.3}", report.share_at_own_rates));
        cells.push(format!("{:.1}", report.core_rows_per_tick));
        let ModeReport { ticks, core_rows, drafts, drafts_kept, .. } = report;
        cells.extend([u64::from(*ticks), *core_rows, *drafts, *drafts_kept].map(|count| count.to_string()));
        table.add_row(cells);
    }
    align(&mut table);
    table
}

fn phases(measurement: &Measurement) -> Table {
    let header = ["mode", "prelude", "core", "coda, head", "sampling", "rest", "all"];
    let mut table = table(header.map(str::to_owned).to_vec());
    for (mode, ModeReport { phases, seconds, .. }) in &measurement.modes {
        let Phases { prelude, core, coda, sampling, rest } = phases;
        let mut cells = vec![mode.name().to_owned()];
        cells.extend([prelude, core, coda, sampling, rest].map(time));
        cells.push(format!("{:.1} ms", 1e3 * seconds));
        table.add_row(cells);
    }
    align(&mut table);
    table
}

fn time(phase: &PhaseTime) -> String {
    format!("{:.1} ms {:4.1} %", phase.milliseconds, 100.0 * phase.share)
}

fn best_rates(BestRates { all, own }: &BestRates) -> String {
    let rate = |name: &str, rate: Option<BestRate>| {
        let BestRate { seconds_per_row, rows, .. } = rate?;
        let least = rows / 2 + 1;
        let rows = if least >= rows { rows.to_string() } else { format!("{least} to {rows}") };
        Some(format!("{name} {:.4} ({rows} rows)", 1e3 * seconds_per_row))
    };
    let parts = |PerPart { prelude, core, coda }: PerPart<Option<BestRate>>| {
        let parts = [("prelude", prelude), ("core", core), ("coda", coda)];
        parts.into_iter().filter_map(|(name, best)| rate(name, best)).collect::<Vec<_>>().join(", ")
    };
    format!("all: {}; tokens: {}; prompts: {}", parts(*all), parts(own.generated), parts(own.prompt))
}
