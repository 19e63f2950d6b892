//! Signals to processes.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::PATIENCE;

/// Sends a process a signal, such as `-KILL`. One that is told to stop has stopped when this returns: until then it may still answer.
pub fn signal(pid: u32, signal: &str) -> Result<()> {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status()?;
    ensure!(status.success(), "cannot send {signal} to {pid}");
    let deadline = Instant::now() + PATIENCE;
    while signal == "-STOP" && !is_stopped(pid)? {
        ensure!(Instant::now() < deadline, "{pid} does not stop");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether all threads of a process are stopped.
fn is_stopped(pid: u32) -> Result<bool> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(stat) = std::fs::read_to_string(task?.path().join("stat")) else {
            // The thread has ended meanwhile.
            continue;
        };
        // Behind the name, which stands in parentheses and may have some itself.
        let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
        if state != Some('T') {
            return Ok(false);
        }
    }
    Ok(true)
}
