//! The way to an engine, whichever it is.

use std::time::Duration;

use tokio::sync::mpsc;
use windlass_engine::{Event, Load, Request, SubmitError};

use crate::engine_thread::EngineThread;
use crate::simulated::SimulatedEngine;

/// The way to an engine. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum EngineHandle {
    /// A model's, on a thread of its own.
    Thread(EngineThread),
    /// One that computes nothing.
    Simulated(SimulatedEngine),
}

/// Why the engine did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// The engine refused the request.
    #[error(transparent)]
    Refused(#[from] SubmitError),
    /// More commands wait than the engine's thread takes in between two ticks.
    #[error("the worker's inbox is full: {limit} commands wait already, try again later")]
    InboxFull {
        /// The configured limit.
        limit: usize,
    },
    /// It is gone.
    #[error("the engine has stopped")]
    Stopped,
    /// It is busy with one tick, or stuck.
    #[error("the engine did not answer within {} s", timeout.as_secs_f32())]
    NoAnswer {
        /// How long the caller waited.
        timeout: Duration,
    },
}

impl EngineHandle {
    /// Hands in a request; its events come through the receiver, and dropping that aborts it within a tick. A stream
    /// that ends without [`Event::Finished`] was cut off by the end of the engine.
    pub(crate) async fn submit(&self, request: Request) -> Result<mpsc::Receiver<Event>, EngineError> {
        match self {
            Self::Thread(engine) => engine.submit(request).await,
            Self::Simulated(engine) => engine.submit(request),
        }
    }

    /// How busy the engine is after its present tick.
    pub(crate) async fn load(&self) -> Result<Load, EngineError> {
        match self {
            Self::Thread(engine) => engine.load().await,
            Self::Simulated(engine) => engine.load(),
        }
    }

    /// Succeeds if the engine takes in commands.
    pub(crate) async fn ping(&self, timeout: Duration) -> Result<(), EngineError> {
        match self {
            Self::Thread(engine) => engine.ping(timeout).await,
            Self::Simulated(engine) => engine.load().map(drop),
        }
    }

    /// Ends the engine after its present tick, and all streams with it.
    pub(crate) async fn stop(&self) {
        match self {
            Self::Thread(engine) => engine.stop().await,
            Self::Simulated(engine) => engine.stop(),
        }
    }

    /// Has the engine panic after its present tick, since what it runs on is lost.
    pub(crate) async fn fail(&self, reason: String) {
        match self {
            Self::Thread(engine) => engine.fail(reason).await,
            Self::Simulated(engine) => engine.stop(),
        }
    }

    /// Whether the engine has ended.
    pub(crate) fn has_stopped(&self) -> bool {
        match self {
            Self::Thread(engine) => engine.has_stopped(),
            Self::Simulated(engine) => engine.has_stopped(),
        }
    }

    /// Waits for the end of the engine.
    pub(crate) async fn stopped(&self) {
        match self {
            Self::Thread(engine) => engine.stopped().await,
            Self::Simulated(engine) => engine.stopped().await,
        }
    }
}
