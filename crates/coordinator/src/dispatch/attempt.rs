use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tonic::Streaming;
use windlass_proto::v1::GenerateTaskResponse;
use windlass_proto::v1::generate_task_response::Event;

use super::Task;
use super::setback::Setback;
use crate::registry::{Loss, WorkGuard, Worker, WorkerState};

/// A request at a worker that took it. Dropping it aborts the request there.
pub(super) struct Running {
    pub(super) worker: Arc<Worker>,
    events: Streaming<GenerateTaskResponse>,
    /// Waits for the loss of the worker.
    lost: BoxFuture<'static, Loss>,
    work: WorkGuard,
    has_begun: bool,
    /// Heard already and not told yet.
    first: Option<Result<Event, Setback>>,
}

/// Sends the request to a worker; returns once that took it or did not.
pub(super) async fn attempt(worker: &Arc<Worker>, task: &Task) -> Result<Running, Setback> {
    let work = worker.begin(task.estimate()).ok_or(Setback::Nobody)?;
    let mut lost = worker.lost().boxed();
    // A loss before this moment would not be seen.
    if let WorkerState::Unready { reason } = worker.state() {
        return Err(Setback::Lost { loss: Loss::Connection, suspicious: false, message: reason });
    }
    let mut client = worker.client();
    let events = tokio::select! {
        biased;
        answer = client.generate(task.request()) => answer.map_err(|status| Setback::of(&status))?.into_inner(),
        loss = &mut lost => return Err(Setback::lost(loss)),
    };
    Ok(Running { worker: Arc::clone(worker), events, lost, work, has_begun: false, first: None })
}

impl Running {
    /// Waits for the first event, which [`Self::next`] tells.
    pub(super) async fn begin(&mut self) {
        self.first = Some(self.hear().await);
    }

    /// Itself, unless what it began with was a setback.
    pub(super) fn begun(mut self) -> Result<Self, Setback> {
        match self.first.take() {
            Some(Err(setback)) => Err(setback),
            first => Ok(Self { first, ..self }),
        }
    }

    /// Whether it began with an event that is not told yet.
    pub(super) fn has_event(&self) -> bool {
        matches!(self.first, Some(Ok(_)))
    }

    /// The next event, up to the finish.
    pub(super) async fn next(&mut self) -> Result<Event, Setback> {
        match self.first.take() {
            Some(first) => first,
            None => self.hear().await,
        }
    }

    async fn hear(&mut self) -> Result<Event, Setback> {
        let message = tokio::select! {
            // What arrived before a loss still counts.
            biased;
            message = self.events.message() => message,
            loss = &mut self.lost => return Err(Setback::lost(loss)),
        };
        let event = match message {
            Ok(response) => response.and_then(|response| response.event).ok_or_else(Setback::cut_short)?,
            Err(status) => return Err(Setback::of(&status)),
        };
        if !std::mem::replace(&mut self.has_begun, true) {
            self.worker.succeeded();
        }
        if matches!(event, Event::Token(_)) {
            self.work.token();
        }
        Ok(event)
    }
}
