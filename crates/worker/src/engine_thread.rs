//! The way to the engine, which lives on a thread of its own.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use windlass_engine::{Engine, Event, Load, Request, SubmitError};
use windlass_model::Runner;

use crate::engine_handle::EngineError;
use crate::engine_loop::EngineLoop;

/// The way to the engine's thread. Cheap to clone; the thread ends once all clones are gone and its requests are over,
/// when it is told to stop, or when the engine panics.
#[derive(Debug, Clone)]
pub(crate) struct EngineThread {
    inbox: mpsc::Sender<Command>,
}

/// What the engine's thread is asked for between two ticks.
#[derive(Debug)]
pub(crate) enum Command {
    /// Serve a request, until `events` is closed.
    Submit {
        request: Box<Request>,
        events: mpsc::Sender<Event>,
        reply: oneshot::Sender<Result<(), SubmitError>>,
    },
    /// Say how busy the engine is.
    Load(oneshot::Sender<Load>),
    /// Show that the thread is alive.
    Ping(oneshot::Sender<()>),
    /// Drop everything.
    Stop,
    /// Panic: what the engine runs on is lost.
    Fail(String),
}

impl EngineThread {
    /// Moves `engine` to a new thread that takes in up to `inbox` commands between two ticks.
    pub(crate) fn spawn<R: Runner>(engine: Engine<R>, inbox: usize) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(inbox);
        let engine_loop = EngineLoop::new(engine, receiver);
        // A panic drops the loop, and with it the inbox and all streams: that is how everyone else learns of it.
        let run = move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| engine_loop.run())) {
                tracing::error!(
                    panic = panic_message(&*panic),
                    "the engine panicked: this worker serves no more"
                );
            }
        };
        thread::Builder::new().name("windlass-engine".to_owned()).spawn(run)?;
        Ok(Self { inbox: sender })
    }

    /// Hands in a request; its events come through the receiver, and dropping that aborts it within a tick. A stream
    /// that ends without [`Event::Finished`] was cut off by the end of the engine.
    pub(crate) async fn submit(&self, request: Request) -> Result<mpsc::Receiver<Event>, EngineError> {
        // Room for every event there can be, so a slow reader never stalls the tick. Memory only grows with events
        // that were really made.
        let (events, receiver) = mpsc::channel(request.max_tokens + 1);
        let (reply, answer) = oneshot::channel();
        let command = Command::Submit { request: Box::new(request), events, reply };
        self.inbox.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => EngineError::InboxFull { limit: self.inbox.max_capacity() },
            TrySendError::Closed(_) => EngineError::Stopped,
        })?;
        answer.await.map_err(|_| EngineError::Stopped)??;
        Ok(receiver)
    }

    /// How busy the engine is after its present tick.
    pub(crate) async fn load(&self) -> Result<Load, EngineError> {
        self.ask(Command::Load).await
    }

    /// Succeeds if the engine's thread takes in commands.
    pub(crate) async fn ping(&self, timeout: Duration) -> Result<(), EngineError> {
        let answer = tokio::time::timeout(timeout, self.ask(Command::Ping)).await;
        answer.unwrap_or(Err(EngineError::NoAnswer { timeout }))
    }

    /// Ends the thread after its present tick, and all streams with it.
    pub(crate) async fn stop(&self) {
        if self.inbox.send(Command::Stop).await.is_ok() {
            self.stopped().await;
        }
    }

    /// Has the thread panic after its present tick.
    pub(crate) async fn fail(&self, reason: String) {
        // One that has ended has failed already.
        let _ = self.inbox.send(Command::Fail(reason)).await;
    }

    /// Whether the thread has ended.
    pub(crate) fn has_stopped(&self) -> bool {
        self.inbox.is_closed()
    }

    /// Waits for the end of the thread.
    pub(crate) async fn stopped(&self) {
        self.inbox.closed().await;
    }

    async fn ask<T>(&self, command: fn(oneshot::Sender<T>) -> Command) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(command(reply)).await.map_err(|_| EngineError::Stopped)?;
        answer.await.map_err(|_| EngineError::Stopped)
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
