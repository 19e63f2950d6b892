//! The workers and the models they serve.
//!
//! Workers come and go; one task for each listens to its heart. Knows nothing of prompts or answers, and nothing of where
//! the list of workers comes from.

mod breaker;
mod connect;
mod identity;
mod introduction;
mod members;
mod model;
mod monitor;
mod reason;
mod roster;
mod state;
mod worker;
mod worker_id;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use windlass_proto::v1::Heartbeat;

pub use connect::{Connect, TcpConnect};
pub use members::{MemberMap, Members};
pub(crate) use model::{DepthLimit, Model};
pub(crate) use reason::{is_broken, reason, was_never_sent};
pub(crate) use state::{Loss, WorkerState};
pub(crate) use worker::{WorkGuard, Worker};
pub(crate) use worker_id::WorkerId;

use crate::locks::{lock, read, write};
use crate::metrics;
use crate::random::Random;
use crate::routing::{self, Candidate, Wish, worker_hash};

/// Workers whose reasons `/ready` tells, at most.
const REASONS: usize = 10;

/// How a registry treats its workers.
#[derive(Debug, Clone)]
pub(crate) struct RegistrySettings {
    pub(crate) heartbeat_interval: Duration,
    /// A worker that is silent for longer is lost.
    pub(crate) heartbeat_timeout: Duration,
    /// This many requests that fail in a row suspend a worker.
    pub(crate) breaker_failures: u32,
    /// How many times the mean the worker may owe that a prompt's beginning belongs to.
    pub(crate) affinity_load_factor: f64,
    /// Decides every draw: which workers are compared, and jitter.
    pub(crate) seed: u64,
}

/// The ready workers by model.
type Ready = BTreeMap<String, Arc<[ReadyWorker]>>;

/// A ready worker, with its hash at hand: whoever compares those of a thousand workers need not look at the workers.
struct ReadyWorker {
    hash: u64,
    worker: Arc<Worker>,
}

impl Candidate for ReadyWorker {
    fn hash(&self) -> u64 {
        self.hash
    }

    fn owed(&self) -> u64 {
        self.worker.owed()
    }
}

pub(crate) struct Registry {
    settings: RegistrySettings,
    connect: Arc<dyn Connect>,
    /// Also those that are no members any more and still have requests.
    workers: RwLock<BTreeMap<WorkerId, Arc<Worker>>>,
    models: RwLock<BTreeMap<String, Arc<Model>>>,
    ready: RwLock<Arc<Ready>>,
    is_ready: watch::Sender<bool>,
    /// Counts changes of the list of workers and of their states.
    changes: watch::Sender<u64>,
    random: Mutex<Random>,
    /// Held while a worker's model is compared with the known one.
    registering: tokio::sync::Mutex<()>,
    /// They hold the registry: see [`Watch`].
    monitors: Mutex<JoinSet<()>>,
}

/// While it lives, the registry watches over its workers.
pub(crate) struct Watch(Arc<Registry>);

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.0.monitors).abort_all();
    }
}

impl Registry {
    /// Without workers.
    pub(crate) fn new(settings: RegistrySettings, connect: Arc<dyn Connect>) -> (Arc<Self>, Watch) {
        let registry = Arc::new(Self {
            random: Mutex::new(Random::new(settings.seed)),
            settings,
            connect,
            workers: RwLock::default(),
            models: RwLock::default(),
            ready: RwLock::default(),
            is_ready: watch::Sender::new(false),
            changes: watch::Sender::new(0),
            registering: tokio::sync::Mutex::default(),
            monitors: Mutex::default(),
        });
        let watch = Watch(Arc::clone(&registry));
        (registry, watch)
    }

    pub(crate) fn settings(&self) -> &RegistrySettings {
        &self.settings
    }

    /// The workers that are members, in order of their ids.
    pub(crate) fn workers(&self) -> Vec<Arc<Worker>> {
        read(&self.workers).values().filter(|worker| worker.is_member()).cloned().collect()
    }

    /// The member of this id.
    pub(crate) fn worker(&self, id: &WorkerId) -> Option<Arc<Worker>> {
        read(&self.workers).get(id).filter(|worker| worker.is_member()).cloned()
    }

    /// The models known, by name; one whose workers are all away is still known.
    pub(crate) fn models(&self) -> BTreeMap<String, Arc<Model>> {
        read(&self.models).clone()
    }

    /// The models with a ready worker, by name.
    pub(crate) fn served_models(&self) -> BTreeMap<String, Arc<Model>> {
        let ready = Arc::clone(&read(&self.ready));
        let mut models = self.models();
        models.retain(|name, _| ready.contains_key(name));
        models
    }

    /// Whether a worker of this model, for the empty name of any, takes no more requests and may still have some.
    pub(crate) fn drains(&self, model: &str) -> bool {
        read(&self.workers).values().any(|worker| {
            matches!(&worker.state(), WorkerState::Draining { model: of } if model.is_empty() || of == model)
        })
    }

    /// The worker that a request of this model goes to, if any is ready besides those in `not`.
    pub(crate) fn choose(
        &self,
        model: &Model,
        affinity: Option<u64>,
        cost: u64,
        not: &[WorkerId],
    ) -> Option<Arc<Worker>> {
        let ready = read(&self.ready).get(&model.info.name).cloned()?;
        let is_usable =
            |ReadyWorker { worker, .. }: &ReadyWorker| !not.contains(&worker.id) && worker.breaker_allows();
        let wish = Wish { affinity, cost, load_factor: self.settings.affinity_load_factor };
        let chosen = routing::choose(&ready, is_usable, wish, &mut lock(&self.random))?;
        Some(Arc::clone(&chosen.worker))
    }

    /// Whether any worker is ready.
    pub(crate) fn watch_ready(&self) -> watch::Receiver<bool> {
        self.is_ready.subscribe()
    }

    /// Changes with the list of workers and with the state of any.
    pub(crate) fn watch_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// `Ok` if any worker is ready, or else why each is not.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        let workers = self.workers();
        let states: Vec<_> = workers.iter().map(|worker| (&worker.id, worker.state())).collect();
        if states.iter().any(|(_, state)| matches!(state, WorkerState::Ready { .. })) {
            return Ok(());
        }
        let mut reasons: Vec<_> =
            states.iter().map(|(worker, state)| format!("{worker}: {}", state.reason())).collect();
        let more = reasons.len().saturating_sub(REASONS);
        reasons.truncate(REASONS);
        if more > 0 {
            reasons.push(format!("and {more} more"));
        }
        if reasons.is_empty() {
            reasons.push("there is none".into());
        }
        Err(format!("no worker is ready: {}", reasons.join("; ")))
    }

    /// Half to one and a half times as long.
    pub(crate) fn jittered(&self, duration: Duration) -> Duration {
        lock(&self.random).jittered(duration)
    }

    /// A request failed at this worker though its heart beats.
    pub(crate) fn failed(&self, worker: &Worker) {
        if worker.failed(|length| self.jittered(length)) {
            tracing::warn!(worker = %worker.id, "worker is suspended: requests failed there in a row");
            self.changed();
        }
    }

    /// The worker was told to take no more requests, or to take them again; its next heartbeat confirms it.
    pub(crate) fn told_to_drain(&self, worker: &Worker, drains: bool) {
        match worker.state() {
            WorkerState::Ready { model } | WorkerState::Draining { model } => {
                self.set_state(worker, serving(model, drains));
            }
            WorkerState::Suspended { .. } | WorkerState::Unready { .. } => {}
        }
    }

    /// Takes a sign of life from a worker that serves this model.
    fn heartbeat(&self, worker: &Worker, model: &str, beat: Heartbeat) {
        worker.set_load(beat.load.unwrap_or_default());
        self.set_state(worker, serving(model.to_owned(), beat.draining));
    }

    /// A worker that was ready is so no more: whoever waits for its streams must not.
    fn lose(&self, worker: &Worker, loss: Loss, reason: String) {
        if loss != Loss::Handover {
            metrics::worker_lost();
        }
        self.not_ready(worker, reason);
        worker.lose(loss);
    }

    fn not_ready(&self, worker: &Worker, reason: String) {
        tracing::debug!(worker = %worker.id, reason, "worker is not ready");
        self.set_state(worker, WorkerState::Unready { reason });
    }

    fn set_state(&self, worker: &Worker, state: WorkerState) {
        if worker.set_state(state) {
            self.refresh();
        }
    }

    /// Looks again at who is ready.
    fn refresh(&self) {
        {
            // Held from the first look on, so that no older view replaces a newer one.
            let mut known = write(&self.ready);
            let mut ready: BTreeMap<String, Vec<ReadyWorker>> = BTreeMap::new();
            for worker in self.workers() {
                if let Some(model) = worker.model_served() {
                    let hash = worker_hash(worker.id.as_str());
                    ready.entry(model).or_default().push(ReadyWorker { hash, worker });
                }
            }
            *known = Arc::new(ready.into_iter().map(|(model, workers)| (model, workers.into())).collect());
            let is_ready = !known.is_empty();
            self.is_ready.send_if_modified(|known| std::mem::replace(known, is_ready) != is_ready);
        }
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

fn serving(model: String, draining: bool) -> WorkerState {
    if draining { WorkerState::Draining { model } } else { WorkerState::Ready { model } }
}
