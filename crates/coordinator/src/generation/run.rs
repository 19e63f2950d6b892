use futures::Stream;
use tokio::sync::watch;
use windlass_proto::v1::generate_task_response::Event;
use windlass_proto::v1::{Finish, FinishReason, Token, Usage};

use super::{GenerationError, Meter};
use crate::dispatch::TaskStream;
use crate::text::TextStream;

/// What a generation says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum GenerationEvent {
    /// Text that is certain now, and the tokens since the last delta. The text can lag behind the tokens.
    Delta { text: String, tokens: Vec<Token> },
    /// The last event; its usage is always set.
    Finish(Finish),
}

/// A generation under way. Dropping it aborts it at its worker.
pub(crate) struct Generation {
    /// `None` once there is nothing more to come.
    events: Option<TaskStream>,
    text: Option<TextStream>,
    meter: Meter,
    seed: u64,
    /// Said after the last delta.
    finish: Option<Finish>,
    abort: watch::Receiver<bool>,
}

impl Generation {
    pub(super) fn new(
        events: TaskStream,
        text: Option<TextStream>,
        meter: Meter,
        seed: u64,
        abort: watch::Receiver<bool>,
    ) -> Self {
        Self { events: Some(events), text, meter, seed, finish: None, abort }
    }

    /// The sampler's seed.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// What was used so far.
    pub(crate) fn usage(&self) -> Usage {
        self.meter.usage()
    }

    /// The next event; `None` after a finish or an error.
    pub(crate) async fn next(&mut self) -> Option<Result<GenerationEvent, GenerationError>> {
        if let Some(finish) = self.finish.take() {
            return Some(Ok(GenerationEvent::Finish(finish)));
        }
        let events = self.events.as_mut()?;
        let event = tokio::select! {
            event = events.next() => event,
            error = aborted(&mut self.abort) => Err(error),
        };
        let result = match event {
            Ok(Event::Token(token)) => self.token(token),
            Ok(Event::Finish(finish)) => self.finished(finish),
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            self.events = None;
            self.meter.fail(error.code());
        }
        Some(result)
    }

    /// The events as a stream.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<GenerationEvent, GenerationError>> + Send {
        futures::stream::unfold(self, |mut generation| async move {
            let event = generation.next().await?;
            Some((event, generation))
        })
    }

    fn token(&mut self, token: Token) -> Result<GenerationEvent, GenerationError> {
        self.meter.token(&token);
        let text = self.text.as_mut().filter(|_| !token.is_stop);
        let step = text.map(|text| text.push(token.id)).transpose()?.unwrap_or_default();
        if step.stopped {
            self.end(FinishReason::Stop, self.meter.usage());
        }
        Ok(GenerationEvent::Delta { text: step.text, tokens: vec![token] })
    }

    /// The worker is done. Text held back until now comes first.
    fn finished(&mut self, finish: Finish) -> Result<GenerationEvent, GenerationError> {
        let step = self.text.as_mut().map(TextStream::finish).transpose()?.unwrap_or_default();
        let reason = if step.stopped { FinishReason::Stop } else { finish.reason() };
        self.end(reason, finish.usage.unwrap_or_else(|| self.meter.usage()));
        match self.finish.take() {
            Some(finish) if step.text.is_empty() => Ok(GenerationEvent::Finish(finish)),
            finish => {
                self.finish = finish;
                Ok(GenerationEvent::Delta { text: step.text, tokens: Vec::new() })
            }
        }
    }

    fn end(&mut self, reason: FinishReason, usage: Usage) {
        self.events = None;
        self.meter.finish(reason, &usage);
        self.finish = Some(Finish { reason: reason.into(), usage: Some(usage), seed: self.seed });
    }
}

/// Waits until running generations have to end.
pub(super) async fn aborted(abort: &mut watch::Receiver<bool>) -> GenerationError {
    // An error means that the server is gone.
    let _ = abort.wait_for(|abort| *abort).await;
    GenerationError::Unavailable { message: "the server is shutting down".into() }
}
