use futures::Stream;
use tokio::sync::watch;
use windlass_proto::v1::generate_task_response::Event;
use windlass_proto::v1::{Finish, FinishReason, Token, Usage};

use super::{GenerationError, Meter};
use crate::dispatch::WorkerStream;
use crate::text::TextStream;

/// What a generation says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum GenerationEvent {
    /// Text that is certain now, and the tokens since the last delta. The text can lag behind the tokens.
    Delta { text: String, tokens: Vec<Token> },
    /// The last event; its usage is always set.
    Finish(Finish),
}

/// A generation under way. Dropping it aborts it at the worker.
pub(crate) struct Generation {
    /// `None` once the worker has nothing more to say.
    events: Option<WorkerStream>,
    text: Option<TextStream>,
    meter: Meter,
    seed: u64,
    /// Said after the last delta.
    finish: Option<Finish>,
    abort: watch::Receiver<bool>,
}

impl Generation {
    pub(super) fn new(
        events: WorkerStream,
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
            _ = self.abort.wait_for(|abort| *abort) => Err(GenerationError::Unavailable {
                message: "the server is shutting down".into(),
            }),
        };
        let result = match event {
            Ok(Some(Event::Token(token))) => self.token(token),
            Ok(Some(Event::Finish(finish))) => self.finished(finish),
            Ok(None) => Err(GenerationError::WorkerLost {
                message: "the worker ended the generation without finishing it".into(),
            }),
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
