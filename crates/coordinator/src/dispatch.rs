//! From a request to the stream of a worker that took it.
//!
//! Each ready worker is tried once, and only until the first event: what has begun at one worker is not repeated at
//! another.

use std::sync::Arc;

use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;
use windlass_proto::v1::generate_task_response::Event;
use windlass_proto::v1::{GenerateTaskRequest, GenerateTaskResponse};

use crate::generation::GenerationError;
use crate::registry::{Model, Registry, WorkGuard, Worker, reason};
use crate::routing::cost;

/// The events of one generation. Dropping it aborts the generation at the worker.
pub(crate) struct WorkerStream {
    first: Option<Event>,
    events: Streaming<GenerateTaskResponse>,
    worker: Arc<Worker>,
    _work: WorkGuard,
}

/// Sends the request to the worker that owes least; returns once it answered with a first event.
pub(crate) async fn dispatch(
    registry: &Registry,
    model: &Model,
    request: &GenerateTaskRequest,
) -> Result<WorkerStream, GenerationError> {
    let cost = request_cost(model, request);
    let mut busy = None;
    let mut away = None;
    for worker in registry.candidates(model) {
        match attempt(&worker, request, cost).await {
            Ok(stream) => return Ok(stream),
            Err(status) if status.code() == Code::ResourceExhausted => busy = Some(status),
            Err(status) if is_away(&status) => away = Some(status),
            Err(status) => return Err(refusal(&worker, &status)),
        }
        tracing::debug!(worker = worker.address, "worker did not take the request, trying the next");
    }
    let name = &model.info.name;
    Err(match (busy, away) {
        (Some(status), _) => GenerationError::Busy {
            message: format!("all workers of model '{name}' are busy: {}", reason(&status)),
        },
        (None, Some(status)) => GenerationError::Unavailable {
            message: format!("no worker of model '{name}' can be reached: {}", reason(&status)),
        },
        (None, None) => {
            GenerationError::Unavailable { message: format!("no worker of model '{name}' is ready") }
        }
    })
}

impl WorkerStream {
    /// The next event; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, GenerationError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        match self.events.message().await {
            Ok(response) => Ok(response.and_then(|response| response.event)),
            Err(status) if is_away(&status) => Err(GenerationError::WorkerLost {
                message: format!("the worker was lost in the middle of the generation: {}", reason(&status)),
            }),
            Err(status) => Err(refusal(&self.worker, &status)),
        }
    }
}

async fn attempt(
    worker: &Arc<Worker>,
    request: &GenerateTaskRequest,
    cost: u64,
) -> Result<WorkerStream, Status> {
    let work = worker.begin(cost);
    let mut events = worker.client().generate(request.clone()).await?.into_inner();
    let first = events.message().await?.and_then(|response| response.event);
    let first =
        first.ok_or_else(|| Status::unavailable("the worker ended the generation before its first event"))?;
    Ok(WorkerStream { first: Some(first), events, worker: Arc::clone(worker), _work: work })
}

fn request_cost(model: &Model, request: &GenerateTaskRequest) -> u64 {
    let parameters = request.parameters.clone().unwrap_or_default();
    let prompt = request.prompt.len();
    let room = model.info.context_length.saturating_sub(u32::try_from(prompt).unwrap_or(u32::MAX));
    let max_tokens = parameters.max_tokens.unwrap_or(room).min(room);
    cost(prompt, max_tokens, model.expected_depth(model.depth_limit(&parameters)))
}

/// Whether the worker said that it cannot serve, or the connection broke (then the status was made here, from an
/// error of the transport).
fn is_away(status: &Status) -> bool {
    status.code() == Code::Unavailable || std::error::Error::source(status).is_some()
}

/// What a worker's refusal means to the client.
fn refusal(worker: &Worker, status: &Status) -> GenerationError {
    let message = reason(status);
    match status.code() {
        Code::InvalidArgument => {
            let violation = status
                .get_details_bad_request()
                .and_then(|request| request.field_violations.into_iter().next());
            match violation {
                Some(violation) => {
                    GenerationError::Invalid { field: Some(violation.field), message: violation.description }
                }
                None => GenerationError::Invalid { field: None, message },
            }
        }
        Code::ResourceExhausted => GenerationError::Busy { message },
        Code::Unavailable => GenerationError::Unavailable { message },
        code => {
            tracing::error!(worker = worker.address, %code, message, "worker failed");
            GenerationError::Internal { message: format!("the worker failed: {message}") }
        }
    }
}
