//! The stream of heartbeats to one coordinator.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Status;
use windlass_engine::{InvalidRequest, Load};
use windlass_proto::v1::Heartbeat;

use crate::answer;
use crate::drain::DrainWatch;
use crate::engine_handle::{EngineError, EngineHandle};
use crate::question::{Question, Questions};
use crate::served_model::ServedModel;

/// Where a listener names no interval.
const INTERVAL_MS: u32 = 500;
/// Intervals that a listener may ask for.
const INTERVALS_MS: std::ops::RangeInclusive<u32> = 10..=60_000;

/// What a stream of heartbeats reports on.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    pub(crate) engine: EngineHandle,
    /// Those of all streams.
    pub(crate) questions: Arc<Questions>,
    pub(crate) drain: DrainWatch,
    pub(crate) model: Arc<ServedModel>,
    pub(crate) interval: Duration,
    /// How long the engine may owe an answer.
    pub(crate) stuck_after: Duration,
}

/// Between two heartbeats.
struct Pause {
    heartbeats: Heartbeats,
    due: Instant,
    last: Option<Load>,
    /// Asked, and not known to be answered.
    question: Option<Question>,
}

/// The interval that a listener asks for.
pub(crate) fn interval(interval_ms: Option<u32>) -> Result<Duration, InvalidRequest> {
    let interval_ms = interval_ms.unwrap_or(INTERVAL_MS);
    if !INTERVALS_MS.contains(&interval_ms) {
        let (least, most) = INTERVALS_MS.into_inner();
        let reason = format!("{interval_ms} is out of range: use {least} to {most}");
        return Err(InvalidRequest::new("interval_ms", reason));
    }
    Ok(Duration::from_millis(interval_ms.into()))
}

impl Heartbeats {
    /// One heartbeat at once, one every interval, and one when draining begins or ends. An engine that is busy with a long tick
    /// is reported with its last load; the stream ends when it owes an answer for too long, to this stream or to one before, when it
    /// is dead, or with the worker.
    pub(crate) fn stream(self) -> impl Stream<Item = Result<Heartbeat, Status>> + Send {
        let pause = Pause { due: Instant::now(), heartbeats: self, last: None, question: None };
        unfold(Some(pause), |pause| async {
            let mut pause = pause?;
            match pause.next().await {
                Ok(heartbeat) => Some((Ok(heartbeat), Some(pause))),
                Err(status) => Some((Err(status), None)),
            }
        })
    }
}

impl Pause {
    async fn next(&mut self) -> Result<Heartbeat, Status> {
        let Heartbeats { engine, drain, interval, .. } = &mut self.heartbeats;
        tokio::select! {
            // A change that comes when a heartbeat is due needs no other.
            biased;
            () = drain.changed() => {}
            () = sleep_until(self.due) => {}
            () = engine.stopped() => {}
        }
        let ended = drain.clone().ended();
        self.due = Instant::now() + *interval;
        tokio::select! {
            biased;
            () = ended => return Err(Status::unavailable("this worker is shutting down")),
            asked = self.ask() => asked?,
        }
        let Heartbeats { drain, model, .. } = &self.heartbeats;
        Ok(Heartbeat {
            load: self.last.as_ref().map(answer::load),
            draining: drain.is_draining(),
            fingerprint: model.fingerprint.clone(),
        })
    }

    /// Brings the load up to date, or leaves it as it is where the engine takes longer than half an interval.
    async fn ask(&mut self) -> Result<(), Status> {
        let Self { heartbeats: Heartbeats { questions, interval, stuck_after, .. }, question, last, .. } =
            self;
        let now = Instant::now();
        let asked = question.get_or_insert_with(|| questions.ask());
        let answer = timeout_at(now + *interval / 2, &mut asked.answer).await;
        match answer {
            Ok(Ok(load)) => (*last, *question) = (Some(load), None),
            Ok(Err(error)) => return Err(Status::unavailable(error.to_string())),
            Err(_) if asked.since.elapsed() >= *stuck_after => {
                let error = EngineError::NoAnswer { timeout: *stuck_after };
                return Err(Status::unavailable(error.to_string()));
            }
            Err(_) => {}
        }
        Ok(())
    }
}
