//! The task that keeps asking one worker.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tonic::{Response, Status};
use windlass_proto::v1::{HealthRequest, InfoRequest, LoadRequest, ModelInfo, TokenizerRequest};

use super::reason::reason;
use super::{Registry, Worker, WorkerState};
use crate::random::jitter;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const TOKENIZER_TIMEOUT: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Introduces the worker, polls it until it fails, and begins again after a pause that grows.
pub(super) async fn monitor(registry: Arc<Registry>, worker: Arc<Worker>, poll_interval: Duration) {
    let mut pause = FIRST_PAUSE;
    loop {
        let reason = match introduce(&registry, &worker).await {
            Ok(model) => {
                tracing::info!(worker = worker.address, "worker is ready");
                pause = FIRST_PAUSE;
                poll(&worker, &model, poll_interval).await
            }
            Err(reason) => reason,
        };
        let state = WorkerState::Unready { reason };
        if worker.state() != state {
            tracing::warn!(worker = worker.address, ?state, "worker is not ready");
            registry.set_state(&worker, state);
        }
        sleep(pause.mul_f64(jitter())).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Learns what the worker serves; it is ready afterwards.
async fn introduce(registry: &Arc<Registry>, worker: &Arc<Worker>) -> Result<ModelInfo, String> {
    let mut client = worker.client();
    let info = model(worker).await?;
    let files = answer(TOKENIZER_TIMEOUT, client.tokenizer(TokenizerRequest {})).await?;
    ask(worker).await?;
    let (registry, worker) = (Arc::clone(registry), Arc::clone(worker));
    let introduced = info.clone();
    let registered = tokio::task::spawn_blocking(move || registry.register(&worker, info, &files));
    registered.await.map_err(|error| error.to_string())??;
    Ok(introduced)
}

/// Asks until there is no answer, or one about another model; returns why.
///
/// The channel connects again by itself, so a worker that was restarted in between is known by its model only.
async fn poll(worker: &Worker, introduced: &ModelInfo, interval: Duration) -> String {
    loop {
        sleep(interval).await;
        match model(worker).await {
            Ok(model) if model == *introduced => {}
            Ok(_) => return format!("it no longer serves model '{}' as introduced", introduced.name),
            Err(reason) => return reason,
        }
        if let Err(reason) = ask(worker).await {
            return reason;
        }
    }
}

async fn model(worker: &Worker) -> Result<ModelInfo, String> {
    let info = answer(ANSWER_TIMEOUT, worker.client().info(InfoRequest {})).await?;
    info.model.ok_or_else(|| "its Info names no model".to_owned())
}

async fn ask(worker: &Worker) -> Result<(), String> {
    let mut client = worker.client();
    answer(ANSWER_TIMEOUT, client.health(HealthRequest {})).await?;
    let mark = worker.mark();
    let load = answer(ANSWER_TIMEOUT, client.load(LoadRequest {})).await?;
    worker.set_load(mark, load);
    Ok(())
}

async fn answer<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, String> {
    match timeout(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(reason(&status)),
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}
