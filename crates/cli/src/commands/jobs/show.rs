use std::io::{Write, stdout};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use comfy_table::Table;
use serde_json::{Value, json};
use windlass_client::{Job, JobState};

use crate::table::{align, table as empty_table};

/// Writes one job.
pub(super) fn show(job: &Job, json: bool) -> Result<()> {
    if json {
        writeln!(stdout(), "{}", job_json(job))?;
        return Ok(());
    }
    writeln!(stdout(), "{}", table(std::slice::from_ref(job)))?;
    if !job.error.is_empty() {
        writeln!(stdout(), "error: {}", job.error)?;
    }
    if !job.output_uri.is_empty() {
        writeln!(stdout(), "output: {}", job.output_uri)?;
    }
    Ok(())
}

/// A row for each job.
pub(super) fn table(jobs: &[Job]) -> Table {
    let header = ["job", "state", "age", "items", "done", "failed", "tokens", "mean depth"];
    let mut table = empty_table(header.map(str::to_owned).to_vec());
    for job in jobs {
        table.add_row([
            job.id.clone(),
            state(job).to_owned(),
            age(job),
            job.items.to_string(),
            (job.succeeded + job.failed).to_string(),
            job.failed.to_string(),
            job.completion_tokens.to_string(),
            mean_depth(job).map_or_else(|| "-".to_owned(), |depth| format!("{depth:.1}")),
        ]);
    }
    align(&mut table);
    table
}

pub(super) fn job_json(job: &Job) -> Value {
    json!({
        "id": job.id,
        "state": state(job),
        "model": job.model,
        "created_ms": job.created_ms,
        "ended_ms": job.ended_ms,
        "items": job.items,
        "succeeded": job.succeeded,
        "failed": job.failed,
        "completion_tokens": job.completion_tokens,
        "core_iterations": job.core_iterations,
        "mean_depth": mean_depth(job),
        "error": (!job.error.is_empty()).then_some(&job.error),
        "output_uri": (!job.output_uri.is_empty()).then_some(&job.output_uri),
        "owner": (!job.owner.is_empty()).then_some(&job.owner),
    })
}

pub(super) fn state(job: &Job) -> &'static str {
    match job.state() {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
        JobState::Unspecified => "unknown",
    }
}

/// Core iterations per token.
pub(super) fn mean_depth(job: &Job) -> Option<f64> {
    (job.completion_tokens > 0).then(|| job.core_iterations as f64 / job.completion_tokens as f64)
}

/// Since it was accepted.
fn age(job: &Job) -> String {
    let created = UNIX_EPOCH + Duration::from_millis(job.created_ms);
    let seconds = SystemTime::now().duration_since(created).unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_shown_with_what_became_of_its_items() {
        let job = Job {
            id: "7".into(),
            state: JobState::Failed.into(),
            items: 9,
            succeeded: 3,
            failed: 1,
            completion_tokens: 4,
            core_iterations: 10,
            error: "no input".into(),
            ..Job::default()
        };
        let table = table(std::slice::from_ref(&job)).to_string();
        assert!(table.contains("failed") && table.contains("2.5"), "{table}");
        let json = job_json(&job);
        assert_eq!((&json["mean_depth"], &json["error"]), (&json!(2.5), &json!("no input")));
        assert_eq!(json["output_uri"], Value::Null);
    }
}
