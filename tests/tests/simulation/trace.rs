//! What happened in a simulation, in order and by its clock: what the harness notes and what the product logs.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// What the product logs for operators and developers; of turmoil the span that names the host.
const LOGGED: &str = "off,turmoil=info,windlass_coordinator=debug,windlass_worker=debug,windlass_store=debug,\
                      windlass_jobs=debug";
/// Lines that a failure shows.
const LAST: usize = 60;

#[derive(Debug, Clone, Default)]
pub(crate) struct Trace(Arc<Mutex<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    text: String,
    /// Ids that the product drew, in order of appearance.
    ids: BTreeMap<String, usize>,
}

impl Trace {
    pub(crate) fn note(&self, at: Duration, what: &str) {
        self.pages().add(&format!("{at:?} {what}\n"));
    }

    /// Takes in what is logged in this thread as long as the guard lives.
    pub(crate) fn listen(&self) -> DefaultGuard {
        let log = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(LOGGED))
            .with_ansi(false)
            .with_timer(SimulatedTime)
            .with_writer(self.clone());
        tracing::subscriber::set_default(log.finish())
    }

    pub(crate) fn text(&self) -> String {
        self.pages().text.clone()
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> String {
        let pages = self.pages();
        let lines: Vec<_> = pages.text.lines().collect();
        lines[lines.len().saturating_sub(LAST)..].join("\n")
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().expect("not poisoned")
    }
}

impl Pages {
    /// Adds text, with a number for each id of a job or owner: they are drawn by the operating system, and nothing depends on
    /// more than their order.
    fn add(&mut self, text: &str) {
        let is_part = |character: char| character.is_ascii_hexdigit() || character == '-';
        let mut rest = text;
        while let Some(start) = rest.find(is_part) {
            let (before, from) = rest.split_at(start);
            let (word, behind) =
                from.split_at(from.find(|character| !is_part(character)).unwrap_or(from.len()));
            self.text.push_str(before);
            if matches!(word.len(), 32 | 36) {
                let next = self.ids.len();
                let number = *self.ids.entry(word.to_owned()).or_insert(next);
                self.text.push_str(&format!("id-{number}"));
            } else {
                self.text.push_str(word);
            }
            rest = behind;
        }
        self.text.push_str(rest);
    }
}

/// Time since the simulation began, by the clock of the host that runs.
struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:?}", crate::cluster::now())
    }
}

impl<'a> MakeWriter<'a> for Trace {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pages().add(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
