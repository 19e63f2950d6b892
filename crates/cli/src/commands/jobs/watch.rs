use std::io::{IsTerminal, Write, stderr, stdout};
use std::pin::pin;
use std::time::Instant;

use anyhow::{Result, bail};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use windlass_client::{Client, Job, JobState};

use super::show::{job_json, mean_depth, show, state};
use crate::counted::counted;

/// Shows a job until it has ended: a bar on a terminal, or a JSON object per change. An error unless all its items succeeded.
pub(super) async fn to_the_end(client: &Client, id: &str, json: bool) -> Result<()> {
    let mut bar = None;
    let mut last = None;
    let mut jobs = pin!(client.watch_job(id).await?);
    while let Some(job) = jobs.next().await {
        let job = job?;
        if json {
            writeln!(stdout(), "{}", job_json(&job))?;
        } else if stderr().is_terminal() {
            bar.get_or_insert_with(|| Bar::new(&job)).update(&job);
        }
        last = Some(job);
    }
    if let Some(bar) = bar {
        bar.bar.finish_and_clear();
    }
    let Some(job) = last else { bail!("the server ended before the job did: watch it again") };
    if !json {
        show(&job, false)?;
    }
    verdict(&job)
}

/// An error that says what went wrong, if anything did.
fn verdict(job: &Job) -> Result<()> {
    match job.state() {
        JobState::Succeeded if job.failed == 0 => Ok(()),
        JobState::Succeeded => {
            bail!("{} of {} failed: their results say why", job.failed, counted(job.items as usize, "item"))
        }
        JobState::Failed => bail!("the job failed: {}", job.error),
        _ => bail!("the job ended as {}", state(job)),
    }
}

struct Bar {
    bar: ProgressBar,
    start: Instant,
    /// Tokens there were when the bar began.
    tokens: u64,
}

impl Bar {
    fn new(job: &Job) -> Self {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos} of {len}, {eta} left");
        let bar = ProgressBar::new(job.items).with_style(style.expect("the template is well-formed"));
        bar.set_position(job.succeeded + job.failed);
        bar.reset_eta();
        Self { bar, start: Instant::now(), tokens: job.completion_tokens }
    }

    fn update(&self, job: &Job) {
        let tokens = job.completion_tokens.saturating_sub(self.tokens);
        let rate = tokens as f64 / self.start.elapsed().as_secs_f64().max(0.001);
        let depth = mean_depth(job).map(|depth| format!(", mean depth {depth:.1}")).unwrap_or_default();
        let failed = if job.failed > 0 { format!(", {} failed", job.failed) } else { String::new() };
        self.bar.set_message(format!("{} {rate:.0} tokens/s{depth}{failed}", state(job)));
        self.bar.set_position(job.succeeded + job.failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_job_without_a_failed_item_is_a_success() {
        let job = |state: JobState, failed| Job { state: state.into(), items: 5, failed, ..Job::default() };
        assert!(verdict(&job(JobState::Succeeded, 0)).is_ok());
        let failed = verdict(&job(JobState::Succeeded, 2)).unwrap_err().to_string();
        assert_eq!(failed, "2 of 5 items failed: their results say why");
        assert!(verdict(&job(JobState::Failed, 0)).is_err());
        let cancelled = verdict(&job(JobState::Cancelled, 0)).unwrap_err().to_string();
        assert_eq!(cancelled, "the job ended as cancelled");
    }
}
