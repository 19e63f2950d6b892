use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use windlass_proto::v1::generate_task_response::Event;

use super::attempt::Running;
use super::hedge::{Hedge, Hedged};
use super::setback::Setback;
use super::{MigrationSettings, Task};
use crate::generation::GenerationError;
use crate::metrics;
use crate::registry::{Loss, Registry, Worker, WorkerId};

/// Workers asked in a row before there is a pause, or an error.
const MOST_ASKED: usize = 16;
/// A request that costs this many workers in a row, with no token in between, is taken for the cause.
const MOST_SUSPICIONS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The events of one request, from one worker after another. Dropping it aborts the request.
pub(crate) struct TaskStream {
    registry: Arc<Registry>,
    settings: MigrationSettings,
    hedge: Hedge,
    task: Task,
    running: Option<Running>,
    first: Option<Event>,
    /// A worker took it once: from then on it is carried on.
    is_taken: bool,
    migrations: u32,
    suspicions: u32,
    /// How it was lost last, until it goes on.
    lost: Option<Loss>,
    /// Where it was lost just now.
    avoided: Option<WorkerId>,
}

impl TaskStream {
    /// Sends the request to a worker; returns once that took it, or where it is hedged said something.
    pub(crate) async fn start(
        registry: Arc<Registry>,
        settings: MigrationSettings,
        task: Task,
    ) -> Result<Self, GenerationError> {
        let mut stream = Self {
            registry,
            settings,
            hedge: Hedge::new(settings.hedge_after),
            task,
            running: None,
            first: None,
            is_taken: false,
            migrations: 0,
            suspicions: 0,
            lost: None,
            avoided: None,
        };
        // One that is late already needs no worker.
        if stream.task.finish().is_none() {
            stream.place().await?;
        }
        Ok(stream)
    }

    /// Waits for the first event, which [`Self::next`] tells.
    pub(crate) async fn begin(&mut self) -> Result<(), GenerationError> {
        self.first = Some(self.next().await?);
        Ok(())
    }

    /// The next event, up to the finish.
    pub(crate) async fn next(&mut self) -> Result<Event, GenerationError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        loop {
            let Some(running) = &mut self.running else {
                match self.task.finish() {
                    Some(finish) => return Ok(Event::Finish(finish)),
                    None => self.place().await?,
                }
                continue;
            };
            match running.next().await {
                Ok(event) => {
                    if let Event::Token(token) = &event {
                        self.task.token(token);
                        self.suspicions = 0;
                    }
                    return Ok(event);
                }
                Err(setback) => self.leave(setback)?,
            }
        }
    }

    /// The worker does not finish the request: another is to go on, unless there is a reason against it.
    fn leave(&mut self, setback: Setback) -> Result<(), GenerationError> {
        let Some(Running { worker, .. }) = self.running.take() else { return Ok(()) };
        let (loss, message) = match self.note(&worker, setback) {
            Setback::Lost { loss, message, .. } => (loss, message),
            // It took the request and has no room for it after all.
            Setback::Busy { message } => (Loss::Handover, message),
            setback @ (Setback::Refused(_) | Setback::TooLarge(_) | Setback::Nobody) => {
                return Err(setback.into_error(self.model()));
            }
        };
        if loss == Loss::Handover {
            tracing::info!(worker = %worker.id, message, "a request is handed over");
        } else {
            tracing::warn!(worker = %worker.id, loss = loss.name(), message, "a request's worker is lost");
        }
        if self.migrations >= self.settings.most {
            let message = format!("the worker was lost in the middle of the generation: {message}");
            return Err(GenerationError::WorkerLost { message });
        }
        self.migrations += 1;
        self.lost = Some(loss);
        self.avoided = Some(worker.id.clone());
        Ok(())
    }

    /// Finds a worker for the request, if it was taken once with patience; or its deadline passes.
    async fn place(&mut self) -> Result<(), GenerationError> {
        let patience = Instant::now() + self.settings.patience;
        let mut pause = FIRST_PAUSE;
        loop {
            let setback = match self.ask_around().await {
                Ok(running) => {
                    self.running = Some(running);
                    self.is_taken = true;
                    if let Some(loss) = self.lost.take() {
                        metrics::migration(loss.name());
                    }
                    return Ok(());
                }
                Err(setback) => setback,
            };
            if !self.is_taken || matches!(setback, Setback::Refused(_)) {
                return Err(setback.into_error(self.model()));
            }
            let now = Instant::now();
            if now >= patience {
                let reason = setback.into_error(self.model());
                let waited = self.settings.patience;
                let message = format!("the worker was lost, and none took over within {waited:?}: {reason}");
                return Err(GenerationError::WorkerLost { message });
            }
            let until = self.task.deadline().map_or(patience, |deadline| deadline.min(patience));
            sleep(self.registry.jittered(pause).min(until.saturating_duration_since(now))).await;
            if self.task.finish().is_some() {
                return Ok(());
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Asks ready workers, each once, until one takes the request. The first time around, not the one it was lost at.
    async fn ask_around(&mut self) -> Result<Running, Setback> {
        let mut asked: Vec<WorkerId> = self.avoided.take().into_iter().collect();
        let mut worst = Setback::Nobody;
        for _ in 0..MOST_ASKED {
            let cost = self.task.estimate().expected();
            let chosen = self.registry.choose(&self.task.model, self.task.affinity(), cost, &asked);
            let Some(worker) = chosen else { break };
            let Hedged { outcome, worker, failed } =
                self.hedge.attempt(&self.registry, worker, &self.task, &asked).await;
            let setback = match outcome {
                // A failure beside it is held against that worker alone.
                Ok(running) => {
                    if let Some((other, setback)) = failed {
                        self.note(&other, setback);
                    }
                    return Ok(running);
                }
                Err(setback) => Some((worker, setback)),
            };
            for (worker, setback) in failed.into_iter().chain(setback) {
                tracing::debug!(worker = %worker.id, ?setback, "worker did not take the request");
                match self.note(&worker, setback) {
                    refused @ Setback::Refused(_) => return Err(refused),
                    setback => worst = worst.or_worse(setback),
                }
                asked.push(worker.id.clone());
            }
        }
        Err(worst)
    }

    /// Holds a setback against the worker, and perhaps against the request: then it is refused.
    fn note(&mut self, worker: &Worker, setback: Setback) -> Setback {
        let Setback::Lost { loss, suspicious, message } = &setback else { return setback };
        // To hand over what runs, or to refuse what is meant for another model or comes while it drains, is no failure.
        if *loss == Loss::Handover {
            return setback;
        }
        self.registry.failed(worker);
        self.suspicions += u32::from(*suspicious);
        if self.suspicions < MOST_SUSPICIONS {
            return setback;
        }
        let message = format!(
            "{MOST_SUSPICIONS} workers in a row failed while they ran this request, which is given up as the likely \
             cause; the last said: {message}"
        );
        tracing::error!(worker = %worker.id, message, "request is given up");
        Setback::Refused(GenerationError::Internal { message })
    }

    fn model(&self) -> &str {
        &self.task.model.info.name
    }
}
