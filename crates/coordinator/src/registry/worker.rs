use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tonic::transport::Channel;
use windlass_proto::v1::LoadResponse;
use windlass_proto::v1::worker_client::WorkerClient;

use super::breaker::Breaker;
use super::identity::Identity;
use super::{Loss, WorkerId, WorkerState};
use crate::locks::{lock, read, write};
use crate::routing::{Estimate, Work};

/// Tokenizer files can be large; nothing else a worker sends is.
const MESSAGE_LIMIT_BYTES: usize = 64 << 20;

/// One worker: the way to it and what is known of it.
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) address: String,
    channel: Channel,
    state: RwLock<WorkerState>,
    introduced: RwLock<Option<Introduction>>,
    load: RwLock<LoadResponse>,
    work: Mutex<Work>,
    /// What `work` says is owed, for those who compare many workers.
    owed: AtomicU64,
    breaker: Mutex<Breaker>,
    /// Tells streams how the worker was lost, in the order in which they came to it.
    losses: broadcast::Sender<Loss>,
    standing: watch::Sender<Standing>,
}

/// What a worker said of itself.
#[derive(Debug, Clone)]
pub(super) struct Introduction {
    pub(super) identity: Identity,
    pub(super) version: String,
}

/// Whether anyone still needs to watch over a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    is_member: bool,
    requests: usize,
}

impl Worker {
    pub(super) fn new(id: WorkerId, address: String, channel: Channel, breaker_failures: u32) -> Self {
        Self {
            id,
            address,
            channel,
            state: RwLock::new(WorkerState::Unready { reason: "not yet connected".into() }),
            introduced: RwLock::default(),
            load: RwLock::default(),
            work: Mutex::default(),
            owed: AtomicU64::new(0),
            breaker: Mutex::new(Breaker::new(breaker_failures)),
            losses: broadcast::Sender::new(1),
            standing: watch::Sender::new(Standing { is_member: true, requests: 0 }),
        }
    }

    pub(crate) fn client(&self) -> WorkerClient<Channel> {
        WorkerClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_LIMIT_BYTES)
    }

    pub(crate) fn state(&self) -> WorkerState {
        match read(&self.state).clone() {
            WorkerState::Ready { model } if !self.breaker_allows() => WorkerState::Suspended { model },
            state => state,
        }
    }

    /// Whether the state is another than before.
    pub(super) fn set_state(&self, state: WorkerState) -> bool {
        let mut known = write(&self.state);
        let changed = *known != state;
        *known = state;
        changed
    }

    /// The model it takes requests for, suspended or not.
    pub(super) fn model_served(&self) -> Option<String> {
        match &*read(&self.state) {
            WorkerState::Ready { model } => Some(model.clone()),
            _ => None,
        }
    }

    /// What it introduced itself with last, however long ago.
    pub(super) fn introduced(&self) -> Option<Introduction> {
        read(&self.introduced).clone()
    }

    pub(super) fn set_introduced(&self, introduction: Introduction) {
        *write(&self.introduced) = Some(introduction);
        lock(&self.breaker).introduced(Instant::now());
    }

    /// Name of the model and version that it introduced itself with, and whether it only simulates; empty before.
    pub(crate) fn model_and_version(&self) -> (String, String, bool) {
        let introduced = self.introduced().map(|Introduction { identity, version }| {
            let simulated = identity.info.simulated;
            (identity.info.name, version, simulated)
        });
        introduced.unwrap_or_default()
    }

    /// What the worker last reported.
    pub(crate) fn load(&self) -> LoadResponse {
        read(&self.load).clone()
    }

    pub(super) fn set_load(&self, load: LoadResponse) {
        self.work(|work| work.report(load.queued_core_iterations));
        *write(&self.load) = load;
    }

    /// Our requests under way there, and the core iterations they are expected to take.
    pub(crate) fn under_way(&self) -> (usize, u64) {
        self.work(|work| (work.requests(), work.expected()))
    }

    /// Counts a request against the worker while the guard lives. `None`: another request is on trial there.
    pub(crate) fn begin(self: &Arc<Self>, estimate: Estimate) -> Option<WorkGuard> {
        let is_trial = {
            let mut breaker = lock(&self.breaker);
            if !breaker.allows(Instant::now()) {
                return None;
            }
            breaker.begin()
        };
        self.standing.send_modify(|standing| standing.requests += 1);
        let ticket = self.work(|work| work.begin(estimate));
        Some(WorkGuard { ticket, worker: Arc::clone(self), is_trial })
    }

    pub(crate) fn succeeded(&self) {
        lock(&self.breaker).succeeded();
    }

    /// A request failed there. Whether that suspends the worker.
    pub(super) fn failed(&self, jitter: impl FnOnce(Duration) -> Duration) -> bool {
        let now = Instant::now();
        let mut breaker = lock(&self.breaker);
        let before = breaker.allows(now);
        breaker.failed(now, jitter);
        before && !breaker.allows(now)
    }

    /// Core iterations owed there, as far as is known.
    pub(super) fn owed(&self) -> u64 {
        self.owed.load(Ordering::Relaxed)
    }

    /// Whether it is not suspended.
    pub(super) fn breaker_allows(&self) -> bool {
        lock(&self.breaker).allows(Instant::now())
    }

    /// Tells every stream from this worker that it is lost.
    pub(super) fn lose(&self, loss: Loss) {
        // There may be none.
        let _ = self.losses.send(loss);
    }

    /// Waits, from this call on, until the worker is lost.
    pub(crate) fn lost(&self) -> impl Future<Output = Loss> + Send + use<> {
        let mut losses = self.losses.subscribe();
        async move {
            loop {
                match losses.recv().await {
                    Ok(loss) => return loss,
                    // Lost more than once: the last loss comes next.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        }
    }

    pub(super) fn set_member(&self, is_member: bool) {
        self.standing.send_modify(|standing| standing.is_member = is_member);
    }

    pub(super) fn is_member(&self) -> bool {
        self.standing.borrow().is_member
    }

    /// Whether it is no member any more and its last request ended.
    pub(super) fn is_dismissed(&self) -> bool {
        *self.standing.borrow() == Standing { is_member: false, requests: 0 }
    }

    /// Waits until it is dismissed.
    pub(super) async fn dismissed(&self) {
        let dismissed = Standing { is_member: false, requests: 0 };
        // The sender lives as long as this worker.
        let _ = self.standing.subscribe().wait_for(|standing| *standing == dismissed).await;
    }

    fn work<T>(&self, change: impl FnOnce(&mut Work) -> T) -> T {
        let mut work = lock(&self.work);
        let result = change(&mut work);
        self.owed.store(work.owed(), Ordering::Relaxed);
        result
    }
}

/// A request under way at a worker.
pub(crate) struct WorkGuard {
    worker: Arc<Worker>,
    ticket: u64,
    is_trial: bool,
}

impl WorkGuard {
    /// A token came.
    pub(crate) fn token(&self) {
        self.worker.work(|work| work.token(self.ticket));
    }
}

impl Drop for WorkGuard {
    fn drop(&mut self) {
        if self.is_trial {
            lock(&self.worker.breaker).trial_ended();
        }
        self.worker.work(|work| work.end(self.ticket));
        self.worker.standing.send_modify(|standing| standing.requests -= 1);
    }
}
