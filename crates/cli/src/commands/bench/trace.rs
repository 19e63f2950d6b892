//! A Chrome trace: every launch of the last round, for chrome://tracing or a viewer that reads its format.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use windlass_engine::{LaunchRecord, Phase};

use super::mode::Mode;
use super::outcome::Launch;

/// One event of the trace event format.
#[derive(Debug, Serialize)]
struct TraceEvent<'a> {
    name: &'a str,
    /// `X`: complete, with a duration; `M`: gives a name to a process or a track.
    ph: &'static str,
    /// The measurement.
    pid: usize,
    /// The mode.
    tid: usize,
    #[serde(flatten)]
    span: Option<Span>,
    args: Fields<'a>,
}

/// Microseconds since the mode's run began.
#[derive(Debug, Serialize)]
struct Span {
    ts: f64,
    dur: f64,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Fields<'a> {
    Launch { rows: u32, tick: u32 },
    Name { name: &'a str },
}

/// Writes events as they come, so that a long trace needs no memory.
pub(super) struct Trace<W: Write> {
    to: W,
    events: usize,
}

impl<W: Write> Trace<W> {
    pub(super) fn begin(mut to: W) -> Result<Self> {
        to.write_all(b"{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n")?;
        Ok(Self { to, events: 0 })
    }

    /// Names a measurement. Its tracks follow.
    pub(super) fn measurement(&mut self, pid: usize, name: &str) -> Result<()> {
        self.name("process_name", (pid, 0), name)
    }

    /// The launches of one mode's run.
    pub(super) fn track(&mut self, pid: usize, mode: Mode, launches: &[Launch]) -> Result<()> {
        let tid = mode as usize;
        self.name("thread_name", (pid, tid), mode.name())?;
        let origin = launches.first().map(|launch| launch.record.start).unwrap_or_default();
        for &Launch { tick, record: LaunchRecord { phase, rows, start, end }, .. } in launches {
            let microseconds = |duration: Duration| duration.as_nanos() as f64 / 1e3;
            let span = Span { ts: microseconds(start - origin), dur: microseconds(end - start) };
            let args = Fields::Launch { rows, tick };
            self.write(&TraceEvent { name: phase_name(phase), ph: "X", pid, tid, span: Some(span), args })?;
        }
        Ok(())
    }

    pub(super) fn end(mut self) -> Result<()> {
        self.to.write_all(b"\n]}\n")?;
        Ok(self.to.flush()?)
    }

    fn name(&mut self, what: &str, (pid, tid): (usize, usize), name: &str) -> Result<()> {
        self.write(&TraceEvent { name: what, ph: "M", pid, tid, span: None, args: Fields::Name { name } })
    }

    fn write(&mut self, event: &TraceEvent<'_>) -> Result<()> {
        if self.events > 0 {
            self.to.write_all(b",\n")?;
        }
        self.events += 1;
        Ok(serde_json::to_writer(&mut self.to, event)?)
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Prelude => "prelude",
        Phase::Core => "core",
        Phase::Coda => "coda",
        Phase::Sample => "sample",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn every_launch_is_a_complete_event_on_its_mode_s_track() {
        let (start, end) = (Duration::from_millis(5), Duration::from_micros(5250));
        let core = LaunchRecord { phase: Phase::Core, rows: 7, start, end };
        let coda = LaunchRecord { phase: Phase::Coda, rows: 2, start: end, end: end + start };
        let mut bytes = Vec::new();
        let mut trace = Trace::begin(&mut bytes).unwrap();
        trace.measurement(3, "fixed:2, 4 lanes").unwrap();
        let launches = [(0, core), (1, coda)].map(|(tick, record)| Launch { tick, rows: None, record });
        trace.track(3, Mode::Lockstep, &launches).unwrap();
        trace.end().unwrap();
        let trace: Value = serde_json::from_slice(&bytes).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        assert_eq!(events.len(), 4);
        assert_eq!(
            events[1],
            json!({"name": "thread_name", "ph": "M", "pid": 3, "tid": 2, "args": {"name": "lockstep"}})
        );
        let expected = json!({
            "name": "coda", "ph": "X", "pid": 3, "tid": 2, "ts": 250.0, "dur": 5000.0, "args": {"rows": 2, "tick": 1}
        });
        assert_eq!(events[3], expected);
    }
}
