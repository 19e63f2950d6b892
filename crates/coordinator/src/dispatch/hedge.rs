//! A second worker for a request whose first says nothing.
//!
//! The answers of both are the same, so whoever says something first is taken and the other is dropped. Costs core iterations
//! twice; so a request is hedged once at most, before its first token, and only where a worker has nobody waiting.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Task;
use super::attempt::{Running, attempt};
use super::setback::Setback;
use crate::metrics;
use crate::registry::{Registry, Worker, WorkerId};

/// Workers that are looked at for one that has nobody waiting.
const MOST_LOOKED_AT: usize = 4;

/// Whether a request may still be sent to a second worker, and when.
pub(super) struct Hedge(Option<Duration>);

/// What became of one or two attempts.
pub(super) struct Hedged {
    pub(super) outcome: Result<Running, Setback>,
    /// The worker that the outcome is of.
    pub(super) worker: Arc<Worker>,
    /// The other, where it failed.
    pub(super) failed: Option<(Arc<Worker>, Setback)>,
}

impl Hedged {
    fn alone(outcome: Result<Running, Setback>, worker: Arc<Worker>) -> Self {
        Self { outcome, worker, failed: None }
    }
}

impl Hedge {
    /// Once no first event came within `after`; `None`: never.
    pub(super) fn new(after: Option<Duration>) -> Self {
        Self(after)
    }

    /// Sends the request to the worker, and perhaps to another one that is not among those `asked` already.
    pub(super) async fn attempt(
        &mut self,
        registry: &Registry,
        worker: Arc<Worker>,
        task: &Task,
        asked: &[WorkerId],
    ) -> Hedged {
        let Some(after) = self.0.filter(|_| task.is_fresh()) else {
            return Hedged::alone(attempt(&worker, task).await, worker);
        };
        let mut first = pin!(begun(&worker, task));
        tokio::select! {
            biased;
            outcome = &mut first => return Hedged::alone(outcome, Arc::clone(&worker)),
            () = sleep(after) => {}
        }
        let not: Vec<_> = asked.iter().cloned().chain([worker.id.clone()]).collect();
        let Some(other) = idle(registry, task, not) else {
            return Hedged::alone(first.await, Arc::clone(&worker));
        };
        self.0 = None;
        metrics::hedge_started();
        tracing::debug!(first = %worker.id, second = %other.id, "a request is sent to a second worker");
        let mut second = pin!(begun(&other, task));
        tokio::select! {
            biased;
            outcome = &mut first => match failure(outcome) {
                Ok(running) => Hedged::alone(Ok(running), Arc::clone(&worker)),
                Err(setback) => {
                    let outcome = second.await;
                    second_alone(outcome, Arc::clone(&other), (Arc::clone(&worker), setback))
                }
            },
            outcome = &mut second => match failure(outcome) {
                Ok(running) => {
                    metrics::hedge_won();
                    Hedged::alone(Ok(running), Arc::clone(&other))
                }
                Err(setback) => {
                    let (outcome, worker) = (first.await, Arc::clone(&worker));
                    Hedged { outcome, worker, failed: Some((Arc::clone(&other), setback)) }
                }
            },
        }
    }
}

fn second_alone(
    outcome: Result<Running, Setback>,
    worker: Arc<Worker>,
    failed: (Arc<Worker>, Setback),
) -> Hedged {
    if outcome.as_ref().is_ok_and(Running::has_event) {
        metrics::hedge_won();
    }
    Hedged { outcome, worker, failed: Some(failed) }
}

/// The request at the worker once that said something.
async fn begun(worker: &Arc<Worker>, task: &Task) -> Result<Running, Setback> {
    let mut running = attempt(worker, task).await?;
    running.begin().await;
    Ok(running)
}

/// What ended the attempt before its first event, if anything did.
fn failure(outcome: Result<Running, Setback>) -> Result<Running, Setback> {
    outcome.and_then(Running::begun)
}

/// A ready worker where nobody waits.
fn idle(registry: &Registry, task: &Task, mut not: Vec<WorkerId>) -> Option<Arc<Worker>> {
    for _ in 0..MOST_LOOKED_AT {
        let worker = registry.choose(&task.model, None, task.estimate().expected(), &not)?;
        if worker.load().waiting == 0 {
            return Some(worker);
        }
        not.push(worker.id.clone());
    }
    None
}
