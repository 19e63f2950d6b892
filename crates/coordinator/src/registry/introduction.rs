//! Which workers may serve under one name.

use std::sync::Arc;

use windlass_proto::v1::{ModelInfo, TokenizerResponse};

use super::identity::{Identity, most_common};
use super::worker::Introduction;
use super::{Model, Registry, Worker, WorkerState};
use crate::locks::write;

/// Larger tokenizers are read off the threads that serve connections.
const LARGE_FILES_BYTES: usize = 64 << 10;

impl Registry {
    /// Takes a worker's word for what it serves, unless others of that name differ.
    pub(super) async fn register(
        &self,
        worker: &Worker,
        info: ModelInfo,
        version: String,
        files: TokenizerResponse,
    ) -> Result<(), String> {
        let name = info.name.clone();
        // One after the other, in the order in which they came.
        let _registering = self.registering.lock().await;
        let files = Arc::new(files);
        let identity = read(&files, move |files| Identity::new(info, files)).await?;
        worker.set_introduced(Introduction { identity: identity.clone(), version });
        let known = self.models().remove(&name);
        if known.as_ref().is_none_or(|model| model.identity != identity) {
            if let Some(model) = known {
                self.may_replace(worker, &identity, &model.identity)?;
            }
            let model = read(&files, move |files| Model::new(identity, files)).await?;
            let model = Arc::new(model.map_err(|error| error.to_string())?);
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

/// Does something with a tokenizer's files that takes the longer the larger they are.
async fn read<T: Send + 'static>(
    files: &Arc<TokenizerResponse>,
    work: impl FnOnce(&TokenizerResponse) -> T + Send + 'static,
) -> Result<T, String> {
    if files.tokenizer_json.len() < LARGE_FILES_BYTES {
        return Ok(work(files));
    }
    let files = Arc::clone(files);
    tokio::task::spawn_blocking(move || work(&files)).await.map_err(|error| error.to_string())
}
