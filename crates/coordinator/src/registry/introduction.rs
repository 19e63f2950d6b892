//! Which workers may serve under one name.

use std::sync::Arc;

use windlass_proto::v1::{ModelInfo, TokenizerResponse};

use super::identity::{Identity, most_common};
use super::worker::Introduction;
use super::{Model, Registry, Worker, WorkerState};
use crate::locks::{lock, write};
use crate::metrics;

impl Registry {
    /// Takes a worker's word for what it serves, unless others of that name differ. Blocks while it reads a tokenizer.
    pub(super) fn register(
        &self,
        worker: &Worker,
        info: ModelInfo,
        version: String,
        files: &TokenizerResponse,
    ) -> Result<(), String> {
        let name = info.name.clone();
        let _registering = lock(&self.registering);
        let identity = Identity::new(info, files);
        worker.set_introduced(Introduction { identity: identity.clone(), version });
        let known = self.models().remove(&name);
        if known.as_ref().is_none_or(|model| model.identity != identity) {
            if let Some(model) = known {
                self.may_replace(worker, &identity, &model.identity)?;
            }
            let model = Arc::new(Model::new(identity, files).map_err(|error| error.to_string())?);
            metrics::known_model(&name);
            if model.info.simulated {
                tracing::warn!(model = name, "the model is simulated: its answers are drawn, not computed");
            }
            write(&self.models).insert(name, model);
        }
        Ok(())
    }

    /// Whether a name may pass from the identity that is known to the one this worker introduced.
    ///
    /// A name keeps its identity while any worker introduced itself with it last, reachable or not. Then it goes to
    /// the identity that most workers of the name introduced.
    fn may_replace(&self, worker: &Worker, new: &Identity, known: &Identity) -> Result<(), String> {
        let workers = self.workers();
        let introduced: Vec<_> =
            workers.iter().filter_map(|worker| Some(worker.introduced()?.identity)).collect();
        let of_name: Vec<_> = introduced.iter().filter(|other| other.info.name == new.info.name).collect();
        let kept = if of_name.contains(&known) { Some(known) } else { most_common(&of_name) };
        let Some(kept) = kept.filter(|kept| *kept != new) else { return Ok(()) };
        let reason = new.difference(kept);
        if worker.state() != (WorkerState::Unready { reason: reason.clone() }) {
            let (worker, model) = (&worker.id, &new.info.name);
            tracing::error!(%worker, model, reason, "worker is kept out: it differs from others");
        }
        Err(reason)
    }
}
