//! What a process takes of the machine, where Linux says so.

use std::fs;
use std::time::Duration;

/// Processor time is counted in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// Bytes of memory that the process has in use.
pub(super) fn resident_bytes(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Processor time that the process has taken so far.
pub(super) fn processor_time(process: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before it may hold anything.
    let (_, fields) = text.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u32>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    Some(Duration::from_secs_f64(f64::from(user + system) / TICKS_PER_SECOND))
}
