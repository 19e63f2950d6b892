//! The workers and the models they serve.
//!
//! A fixed set of addresses; one task for each keeps asking. Knows nothing of prompts or answers.

mod identity;
mod model;
mod monitor;
mod reason;
mod worker;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinSet;
use windlass_proto::v1::{ModelInfo, TokenizerResponse};
use windlass_transport::ClientTls;

use identity::{Identity, most_common};
pub(crate) use model::{DepthLimit, Model};
pub(crate) use reason::reason;
pub(crate) use worker::{WorkGuard, Worker, WorkerState};

use crate::error::CoordinatorError;
use crate::routing;

pub(crate) struct Registry {
    workers: Vec<Arc<Worker>>,
    models: RwLock<BTreeMap<String, Arc<Model>>>,
    ready: watch::Sender<bool>,
    turn: AtomicUsize,
    /// Held while a worker's model is compared with the known one.
    registering: Mutex<()>,
}

impl Registry {
    /// Must be called inside a tokio runtime.
    pub(crate) fn new(addresses: &[String], tls: Option<&ClientTls>) -> Result<Self, CoordinatorError> {
        let workers = addresses
            .iter()
            .map(|address| Worker::new(address, tls).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            workers,
            models: RwLock::default(),
            ready: watch::Sender::new(false),
            turn: AtomicUsize::new(0),
            registering: Mutex::default(),
        })
    }

    /// Starts one task per worker; they end when the set is dropped.
    pub(crate) fn monitor(self: &Arc<Self>, poll_interval: Duration) -> JoinSet<()> {
        self.workers
            .iter()
            .map(|worker| monitor::monitor(Arc::clone(self), Arc::clone(worker), poll_interval))
            .collect()
    }

    pub(crate) fn workers(&self) -> &[Arc<Worker>] {
        &self.workers
    }

    /// The models known, by name; one whose workers are all away is still known.
    pub(crate) fn models(&self) -> BTreeMap<String, Arc<Model>> {
        self.models.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The models with a ready worker, by name.
    pub(crate) fn served_models(&self) -> BTreeMap<String, Arc<Model>> {
        let mut models = self.models();
        models.retain(|name, _| self.workers.iter().any(|worker| worker.serves(name)));
        models
    }

    /// The ready workers of a model, best first.
    pub(crate) fn candidates(&self, model: &Model) -> Vec<Arc<Worker>> {
        let ready: Vec<_> = self.workers.iter().filter(|worker| worker.serves(&model.info.name)).collect();
        let work: Vec<_> = ready.iter().map(|worker| worker.owed()).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        routing::by_least_work(&work, turn).into_iter().map(|index| Arc::clone(ready[index])).collect()
    }

    /// Whether any worker is ready, as its task saw last.
    pub(crate) fn watch_ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Asks all workers now; `Ok` if one is ready and answers in time, or else what is wrong with each.
    pub(crate) async fn probe(&self, timeout: Duration) -> Result<(), String> {
        let answers = join_all(self.workers.iter().map(|worker| worker.probe(timeout))).await;
        if answers.iter().any(Result::is_ok) {
            return Ok(());
        }
        let reasons: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
        Err(format!("no worker is ready: {}", reasons.join("; ")))
    }

    /// Takes a worker's word for what it serves, unless others of that name differ. Blocks while it reads a tokenizer.
    fn register(&self, worker: &Worker, info: ModelInfo, files: &TokenizerResponse) -> Result<(), String> {
        let name = info.name.clone();
        let _registering = self.registering.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = Identity::new(info, files);
        worker.set_introduced(identity.clone());
        let known = self.models().remove(&name);
        if known.as_ref().is_none_or(|model| model.identity != identity) {
            if let Some(model) = known {
                self.may_replace(worker, &identity, &model.identity)?;
            }
            let model = Arc::new(Model::new(identity, files).map_err(|error| error.to_string())?);
            crate::metrics::known_model(&name);
            self.models.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), model);
        }
        self.set_state(worker, WorkerState::Ready { model: name });
        Ok(())
    }

    /// Whether a name may pass from the identity that is known to the one this worker introduced.
    ///
    /// A name keeps its identity while any worker introduced itself with it last, reachable or not. Then it goes to
    /// the identity that most workers of the name introduced.
    fn may_replace(&self, worker: &Worker, new: &Identity, known: &Identity) -> Result<(), String> {
        let introduced: Vec<_> = self.workers.iter().filter_map(|worker| worker.introduced()).collect();
        let of_name: Vec<_> = introduced.iter().filter(|other| other.info.name == new.info.name).collect();
        let kept = if of_name.contains(&known) { Some(known) } else { most_common(&of_name) };
        let Some(kept) = kept.filter(|kept| *kept != new) else { return Ok(()) };
        let reason = new.difference(kept);
        if worker.state() != (WorkerState::Unready { reason: reason.clone() }) {
            let (worker, model) = (&worker.address, &new.info.name);
            let (fingerprint, expected) = (&new.info.fingerprint, &kept.info.fingerprint);
            tracing::error!(
                worker,
                model,
                fingerprint,
                expected,
                "worker is kept out: it differs from others"
            );
        }
        Err(reason)
    }

    fn set_state(&self, worker: &Worker, state: WorkerState) {
        worker.set_state(state);
        let ready = self.workers.iter().any(|worker| worker.is_ready());
        self.ready.send_if_modified(|known| std::mem::replace(known, ready) != ready);
    }
}
