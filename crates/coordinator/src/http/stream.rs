//! An answer as server-sent events.

use std::collections::VecDeque;
use std::pin::Pin;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream::{SelectAll, Stream, StreamExt, select_all, unfold};
use windlass_proto::v1::{Finish, Usage};

use super::answer::{ChoiceWriter, Envelope, Start, finish_reason};
use super::error::ApiError;
use super::options::UsageChunks;
use super::response::{Choice, Content, Delta, Shape};
use crate::generation::{Generation, GenerationError, GenerationEvent};

/// What happened to which choice, and what it has used.
type Event = (usize, Result<Step, GenerationError>, Usage);
type Events = Pin<Box<dyn Stream<Item = Event> + Send>>;

enum Step {
    /// A worker took the choice, to be sampled with this seed.
    Started {
        seed: u64,
    },
    Said(GenerationEvent),
}

/// A choice between two events.
enum State {
    Waiting(Start),
    Running(Box<Generation>),
}

/// Streams all choices as their tokens come, once the first of them runs; until then an error is the whole answer.
/// Dropping the response aborts the generations.
pub(super) async fn stream(envelope: Envelope, starts: Vec<Start>) -> Result<Response, GenerationError> {
    let mut frames = Frames::new(envelope, starts);
    frames.first().await?;
    let frames = unfold(frames, |mut frames| async move {
        let frame = frames.next().await?;
        Some((Ok::<_, std::convert::Infallible>(frame), frames))
    });
    let mut response = Body::from_stream(frames).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// The frames still to be sent.
struct Frames {
    envelope: Envelope,
    writers: Vec<ChoiceWriter>,
    usages: Vec<Usage>,
    events: SelectAll<Events>,
    ready: VecDeque<String>,
    ended: bool,
}

impl Frames {
    fn new(envelope: Envelope, starts: Vec<Start>) -> Self {
        Self {
            writers: (0..starts.len()).map(ChoiceWriter::new).collect(),
            usages: vec![Usage::default(); starts.len()],
            events: select_all(starts.into_iter().enumerate().map(|(index, start)| events(index, start))),
            ready: VecDeque::new(),
            ended: false,
            envelope,
        }
    }

    /// Waits for what happens first.
    async fn first(&mut self) -> Result<(), GenerationError> {
        if let Some((index, step, usage)) = self.events.next().await {
            self.event(index, Ok(step?), usage);
        }
        Ok(())
    }

    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            if self.ended {
                return None;
            }
            match self.events.next().await {
                Some((index, event, usage)) => self.event(index, event, usage),
                None => self.end(),
            }
        }
    }

    fn event(&mut self, index: usize, step: Result<Step, GenerationError>, usage: Usage) {
        self.usages[index] = usage;
        match step {
            Ok(Step::Started { seed }) => {
                if self.envelope.shape == Shape::Chat {
                    self.role(index, seed);
                }
            }
            Ok(Step::Said(GenerationEvent::Delta { text, tokens })) => {
                let worth_a_chunk = !text.is_empty()
                    || self.envelope.extras.any()
                    || self.envelope.usage_chunks == UsageChunks::Every;
                if worth_a_chunk {
                    let content = self.content(text);
                    let choice = self.writers[index].choice(&self.envelope, content, &tokens);
                    self.chunk(choice);
                }
            }
            Ok(Step::Said(GenerationEvent::Finish(finish))) => self.finish(index, &finish),
            Err(error) => {
                self.ready.push_back(frame(&ApiError::from(error).to_json()));
                self.events.clear();
                self.done();
            }
        }
    }

    fn role(&mut self, index: usize, seed: u64) {
        let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
        let mut choice = bare(index, Content::Delta(delta));
        choice.seed = Some(seed);
        self.chunk(choice);
    }

    fn finish(&mut self, index: usize, finish: &Finish) {
        self.usages[index] = finish.usage.unwrap_or_default();
        let content = match self.envelope.shape {
            Shape::Completion => Content::Text(String::new()),
            Shape::Chat => Content::Delta(Delta::default()),
        };
        let mut choice = bare(index, content);
        choice.finish_reason = Some(finish_reason(finish));
        choice.seed = Some(finish.seed);
        self.chunk(choice);
    }

    fn content(&self, text: String) -> Content {
        match self.envelope.shape {
            Shape::Completion => Content::Text(text),
            Shape::Chat => Content::Delta(Delta { role: None, content: Some(text) }),
        }
    }

    fn chunk(&mut self, choice: Choice) {
        let usage = match self.envelope.usage_chunks {
            UsageChunks::Never => None,
            UsageChunks::Last => Some(None),
            UsageChunks::Every => Some(Some(self.envelope.usage(&self.usages))),
        };
        self.push(vec![choice], usage);
    }

    fn push(&mut self, choices: Vec<Choice>, usage: Option<Option<super::response::UsageBody>>) {
        let object =
            if self.envelope.shape == Shape::Chat { "chat.completion.chunk" } else { "text_completion" };
        let answer = self.envelope.answer(object, choices, usage);
        self.ready.push_back(frame(&serde_json::to_string(&answer).expect("text and numbers are JSON")));
    }

    /// All choices finished.
    fn end(&mut self) {
        if self.envelope.usage_chunks != UsageChunks::Never {
            let usage = self.envelope.usage(&self.usages);
            self.push(Vec::new(), Some(Some(usage)));
        }
        self.done();
    }

    fn done(&mut self) {
        self.ready.push_back(frame("[DONE]"));
        self.ended = true;
    }
}

/// What happens to one choice; an error is the last event.
fn events(index: usize, start: Start) -> Events {
    Box::pin(unfold(Some(State::Waiting(start)), move |state| async move {
        match state? {
            State::Waiting(start) => match start.await {
                Ok(generation) => {
                    let started = Step::Started { seed: generation.seed() };
                    let usage = generation.usage();
                    Some(((index, Ok(started), usage), Some(State::Running(Box::new(generation)))))
                }
                Err(error) => Some(((index, Err(error), Usage::default()), None)),
            },
            State::Running(mut generation) => {
                let event = generation.next().await?;
                let usage = generation.usage();
                Some(((index, event.map(Step::Said), usage), Some(State::Running(generation))))
            }
        }
    }))
}

/// A part of a choice without tokens.
fn bare(index: usize, content: Content) -> Choice {
    Choice { index, content, logprobs: None, finish_reason: None, seed: None, extras: Default::default() }
}

fn frame(data: &str) -> String {
    format!("data: {data}\n\n")
}
