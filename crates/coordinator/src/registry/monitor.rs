//! The task that watches over one worker.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tonic::{Response, Status, Streaming};
use windlass_proto::v1::{
    Heartbeat, HeartbeatsRequest, InfoRequest, InfoResponse, ModelInfo, TokenizerRequest,
};

use super::reason::{is_broken, reason};
use super::{Loss, Registry, Worker};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const TOKENIZER_TIMEOUT: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// With jitter less than a second: a worker that comes back has work within one.
const LONGEST_PAUSE: Duration = Duration::from_millis(600);

/// A worker that introduced itself, and its heart.
struct Introduced {
    model: ModelInfo,
    heartbeats: Streaming<Heartbeat>,
}

/// Watches over the worker until it is no member any more and its last request ended.
pub(super) async fn monitor(registry: Arc<Registry>, worker: Arc<Worker>) {
    loop {
        tokio::select! {
            // Nothing more is heard of a worker that is dismissed.
            biased;
            () = worker.dismissed() => {}
            () = watch(&registry, &worker) => {}
        }
        if registry.forget(&worker) {
            return;
        }
    }
}

/// Introduces the worker, listens to its heart until that stops, and begins again after a pause that grows.
async fn watch(registry: &Arc<Registry>, worker: &Arc<Worker>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match introduce(registry, worker).await {
            Ok(introduced) => {
                tracing::info!(worker = %worker.id, "worker is ready");
                pause = FIRST_PAUSE;
                let (loss, reason) = listen(registry, worker, introduced).await;
                if loss == Loss::Handover {
                    tracing::info!(worker = %worker.id, reason, "worker has left");
                } else {
                    tracing::warn!(worker = %worker.id, reason, loss = loss.name(), "worker is lost");
                }
                registry.lose(worker, loss, reason);
            }
            Err(reason) => registry.not_ready(worker, reason),
        }
        sleep(registry.jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Learns what the worker serves and hears its heart; then it is ready.
async fn introduce(registry: &Arc<Registry>, worker: &Arc<Worker>) -> Result<Introduced, String> {
    let mut client = worker.client();
    let InfoResponse { model, version, .. } = answer(ANSWER_TIMEOUT, client.info(InfoRequest {})).await?;
    let model = model.ok_or("its Info names no model")?;
    let files = answer(TOKENIZER_TIMEOUT, client.tokenizer(TokenizerRequest {})).await?;
    let interval_ms = u32::try_from(registry.settings().heartbeat_interval.as_millis()).unwrap_or(u32::MAX);
    let request = HeartbeatsRequest { interval_ms: Some(interval_ms) };
    let mut heartbeats = answer(ANSWER_TIMEOUT, client.heartbeats(request)).await?;
    let first = answer(ANSWER_TIMEOUT, async { heartbeats.message().await.map(Response::new) }).await?;
    let first = first.ok_or("its heartbeats ended before the first")?;
    if first.fingerprint != model.fingerprint {
        return Err("it turned to another model while it introduced itself".into());
    }
    registry.register(worker, model.clone(), version, files).await?;
    registry.heartbeat(worker, &model.name, first);
    Ok(Introduced { model, heartbeats })
}

/// Listens until the heart stops or beats for another model; how and why.
///
/// The channel connects again by itself, so a worker that was restarted in between is known by its model only.
async fn listen(registry: &Registry, worker: &Worker, introduced: Introduced) -> (Loss, String) {
    let Introduced { model, mut heartbeats } = introduced;
    let mut draining = false;
    loop {
        match next(&mut heartbeats, registry.settings().heartbeat_timeout).await {
            Some(Ok(Some(beat))) if beat.fingerprint == model.fingerprint => {
                draining = beat.draining;
                registry.heartbeat(worker, &model.name, beat);
            }
            Some(Ok(Some(_))) => {
                let reason = format!("it no longer serves model '{}' as introduced", model.name);
                return (Loss::Handover, reason);
            }
            Some(Ok(None)) if draining => return (Loss::Handover, "its heartbeats ended".into()),
            Some(Err(status)) if draining && !is_broken(&status) => return (Loss::Handover, reason(&status)),
            Some(Ok(None)) => return (Loss::Connection, "its heartbeats ended".into()),
            Some(Err(status)) if is_broken(&status) => return (Loss::Connection, reason(&status)),
            Some(Err(status)) => return (Loss::Engine, reason(&status)),
            None => {
                let silence = registry.settings().heartbeat_timeout;
                return (Loss::Silence, format!("no sign of life for {silence:?}"));
            }
        }
    }
}

/// The next heartbeat; `None` after silence.
///
/// Two waits of half the time: when this process itself was stopped, the time is over before what arrived meanwhile was
/// read, and the second wait reads it.
async fn next(
    heartbeats: &mut Streaming<Heartbeat>,
    silence: Duration,
) -> Option<Result<Option<Heartbeat>, Status>> {
    for _ in 0..2 {
        if let Ok(beat) = timeout(silence / 2, heartbeats.message()).await {
            return Some(beat);
        }
    }
    None
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
