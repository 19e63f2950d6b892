//! What a run shows while it goes on.

use std::io::{Write, stdout};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::mode::Mode;
use super::outcome::{Outcome, Outcomes};
use super::report::{Definitions, Machine, Measurement, Settings};
use super::show::{show_definitions, show_measurement, show_settings};

/// The runs done so far on standard error, where that is a terminal, and for people each result on standard output as soon
/// as it is known: a measurement can take many minutes, and what is done by then must not be lost with the rest.
pub(super) struct Progress {
    bar: ProgressBar,
    rounds: usize,
    is_for_people: bool,
    /// What is being measured.
    label: String,
}

impl Progress {
    pub(super) fn new(runs: usize, rounds: usize, is_for_people: bool) -> Self {
        let style =
            ProgressStyle::with_template("run {pos} of {len}: {msg}").expect("the template is well-formed");
        let bar = ProgressBar::new(runs as u64).with_style(style);
        Self { bar, rounds, is_for_people, label: String::new() }
    }

    pub(super) fn begin(&self, machine: &Machine, settings: &Settings) -> Result<()> {
        self.write(|| show_settings(machine, settings, stdout().lock()))
    }

    pub(super) fn measurement_starts(&mut self, depths: &str, lanes: usize) -> Result<()> {
        self.label = format!("{depths}, {lanes} lanes");
        self.write(|| Ok(writeln!(stdout())?))
    }

    pub(super) fn run_starts(&self, mode: Mode, round: usize) {
        self.bar.set_message(format!("{}, round {}: {}", self.label, round + 1, mode.name()));
        self.bar.inc(1);
    }

    /// `round` has ended under all modes, whose last outcomes are in `outcomes`.
    pub(super) fn round_ends(&self, round: usize, outcomes: &Outcomes) -> Result<()> {
        let rate = |(mode, outcomes): (&Mode, &Vec<Outcome>)| {
            let last = outcomes.last()?;
            Some(format!("{} {:.1}", mode.name(), last.tokens_per_second()))
        };
        let rates: Vec<String> = outcomes.iter().filter_map(rate).collect();
        let (label, number, rounds) = (&self.label, round + 1, self.rounds);
        self.write(|| {
            Ok(writeln!(stdout(), "{label}, round {number} of {rounds}, tokens/s: {}", rates.join(", "))?)
        })
    }

    pub(super) fn measurement_ends(&self, measurement: &Measurement) -> Result<()> {
        self.write(|| show_measurement(measurement, stdout().lock()))
    }

    pub(super) fn end(&self, definitions: &Definitions) -> Result<()> {
        self.bar.finish_and_clear();
        self.write(|| show_definitions(definitions, stdout().lock()))
    }

    /// Writes with the bar out of the way; nothing where programs read.
    fn write(&self, write: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.is_for_people { self.bar.suspend(write) } else { Ok(()) }
    }
}
