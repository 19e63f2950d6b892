//! What the engine is asked so that it shows a sign of life.

use std::sync::{Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;
use windlass_engine::Load;

use crate::engine_handle::{EngineError, EngineHandle};

/// A question to the engine, for the load, and since when it owes the answer.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) since: Instant,
    pub(crate) answer: Shared<BoxFuture<'static, Result<Load, EngineError>>>,
}

/// The question that all listeners ask together: whoever comes while the engine owes an answer does not begin to count anew.
#[derive(Debug)]
pub(crate) struct Questions {
    engine: EngineHandle,
    last: Mutex<Option<Question>>,
}

impl Questions {
    pub(crate) fn to(engine: EngineHandle) -> Self {
        Self { engine, last: Mutex::default() }
    }

    /// The question that has no answer yet, or a new one.
    pub(crate) fn ask(&self) -> Question {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at now: those who asked it may have left before the answer came.
        let open = last.take().filter(|question| question.answer.clone().now_or_never().is_none());
        last.insert(open.unwrap_or_else(|| Question::new(self.engine.clone()))).clone()
    }
}

impl Question {
    fn new(engine: EngineHandle) -> Self {
        let answer = async move { engine.load().await };
        Self { since: Instant::now(), answer: answer.boxed().shared() }
    }
}
