use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tonic::transport::Channel;
use windlass_proto::v1::worker_client::WorkerClient;
use windlass_proto::v1::{HealthRequest, LoadResponse};
use windlass_transport::ClientTls;

use super::identity::Identity;
use super::reason::reason;
use crate::config::endpoint;
use crate::error::CoordinatorError;
use crate::routing::Work;

/// Tokenizer files can be large; nothing else a worker sends is.
const MESSAGE_LIMIT_BYTES: usize = 64 << 20;

/// One worker: the way to it and what is known of it.
pub(crate) struct Worker {
    pub(crate) address: String,
    channel: Channel,
    state: RwLock<WorkerState>,
    introduced: RwLock<Option<Identity>>,
    load: RwLock<LoadResponse>,
    work: Mutex<Work>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WorkerState {
    /// Answered lately.
    Ready { model: String },
    /// Not usable, and why.
    Unready { reason: String },
}

impl Worker {
    /// Connects when first used, and again after every loss.
    pub(crate) fn new(address: &str, tls: Option<&ClientTls>) -> Result<Self, CoordinatorError> {
        Ok(Self {
            address: address.to_owned(),
            channel: endpoint(address, tls)?.connect_lazy(),
            state: RwLock::new(WorkerState::Unready { reason: "not yet connected".into() }),
            introduced: RwLock::default(),
            load: RwLock::default(),
            work: Mutex::default(),
        })
    }

    pub(crate) fn client(&self) -> WorkerClient<Channel> {
        WorkerClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_LIMIT_BYTES)
    }

    pub(crate) fn state(&self) -> WorkerState {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_state(&self, state: WorkerState) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// What it introduced itself with last, however long ago.
    pub(super) fn introduced(&self) -> Option<Identity> {
        self.introduced.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_introduced(&self, identity: Identity) {
        *self.introduced.write().unwrap_or_else(PoisonError::into_inner) = Some(identity);
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.state(), WorkerState::Ready { .. })
    }

    pub(crate) fn serves(&self, name: &str) -> bool {
        matches!(self.state(), WorkerState::Ready { model } if model == name)
    }

    /// What the worker last reported.
    pub(crate) fn load(&self) -> LoadResponse {
        self.load.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a report that was asked for at `mark`.
    pub(super) fn set_load(&self, mark: u64, load: LoadResponse) {
        self.work().report(mark, load.queued_core_iterations);
        *self.load.write().unwrap_or_else(PoisonError::into_inner) = load;
    }

    pub(super) fn mark(&self) -> u64 {
        self.work().mark()
    }

    pub(crate) fn owed(&self) -> u64 {
        self.work().owed()
    }

    /// Counts a request's cost against the worker while the guard lives.
    pub(crate) fn begin(self: &Arc<Self>, cost: u64) -> WorkGuard {
        WorkGuard { ticket: self.work().begin(cost), worker: Arc::clone(self) }
    }

    /// Asks the engine now.
    pub(super) async fn probe(&self, timeout: Duration) -> Result<(), String> {
        if let WorkerState::Unready { reason } = self.state() {
            return Err(format!("{}: {reason}", self.address));
        }
        match tokio::time::timeout(timeout, self.client().health(HealthRequest {})).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(format!("{}: {}", self.address, reason(&status))),
            Err(_) => Err(format!("{}: no answer within {timeout:?}", self.address)),
        }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way at a worker.
pub(crate) struct WorkGuard {
    worker: Arc<Worker>,
    ticket: u64,
}

impl Drop for WorkGuard {
    fn drop(&mut self) {
        self.worker.work().end(self.ticket);
    }
}
