//! Runs the generations of one request and answers as a whole or chunk by chunk.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures::future::{BoxFuture, try_join_all};
use tokio::time::Instant;
use windlass_proto::v1::{Finish, FinishReason, Token, Usage};

use super::App;
use super::logprobs::LogprobWriter;
use super::options::{Extras, Options, UsageChunks};
use super::response::{Answer, Choice, Content, Message, Shape, TokenExtras, UsageBody};
use super::stream::stream;
use crate::generation::{Generation, GenerationError, GenerationEvent, Prompt, Wanted};
use crate::random::{random_seed, random_u64};
use crate::registry::Model;
use crate::security::Caller;
use crate::text::Tokenizer;

/// A valid request.
pub(super) struct Job {
    pub(super) shape: Shape,
    pub(super) prompts: Vec<Prompt>,
    pub(super) options: Options,
    pub(super) received: Instant,
    pub(super) caller: Caller,
}

/// What all chunks of an answer share.
pub(super) struct Envelope {
    pub(super) shape: Shape,
    id: String,
    created: u64,
    model: Arc<Model>,
    pub(super) extras: Extras,
    pub(super) usage_chunks: UsageChunks,
    pub(super) choices_per_prompt: usize,
}

pub(super) async fn answer(app: &App, mut job: Job) -> Result<Response, GenerationError> {
    let stream_usage = job.options.stream;
    app.generator.check_choices(job.options.choices)?;
    let model = app.generator.model(&job.options.model)?;
    if job.prompts.is_empty() {
        return Err(GenerationError::invalid("prompt", "the list is empty: send at least one"));
    }
    let envelope = Envelope {
        shape: job.shape,
        id: format!("{}-{:016x}", if job.shape == Shape::Chat { "chatcmpl" } else { "cmpl" }, random_u64()),
        created: unix_seconds(),
        model: Arc::clone(&model),
        extras: job.options.extras,
        usage_chunks: stream_usage.unwrap_or(UsageChunks::Never),
        choices_per_prompt: job.options.choices as usize,
    };
    let starts = starts(app, &model, &mut job).await?;
    match stream_usage {
        Some(_) => stream(envelope, starts).await,
        None => whole(&envelope, starts).await,
    }
}

/// A choice on its way to a worker's first event.
pub(super) type Start = BoxFuture<'static, Result<Generation, GenerationError>>;

/// How to start every choice of every prompt; choices of one prompt follow each other.
async fn starts(app: &App, model: &Arc<Model>, job: &mut Job) -> Result<Vec<Start>, GenerationError> {
    let Options { parameters, stop, choices, .. } = &job.options;
    let generator = &app.generator;
    generator.expect_room(job.prompts.len(), *choices, parameters)?;
    let prompts = generator.all_prompt_ids(model, std::mem::take(&mut job.prompts)).await?;
    let wanted = Wanted { prompts: &prompts, choices: *choices, parameters, stop };
    let admission = generator.admit(&job.caller, model, wanted, job.received).await?;
    let seed = parameters.sampling.as_ref().and_then(|sampling| sampling.seed).unwrap_or_else(random_seed);
    let received = job.received;
    let mut starts: Vec<Start> = Vec::new();
    for ids in prompts {
        for choice in 0..*choices {
            let mut parameters = parameters.clone();
            let sampling = parameters.sampling.get_or_insert_default();
            sampling.seed = Some(seed.wrapping_add(choice.into()));
            let (generator, model) = (Arc::clone(generator), Arc::clone(model));
            let (ids, stop, admission) = (ids.clone(), stop.clone(), Arc::clone(&admission));
            starts.push(Box::pin(async move {
                generator.start(model, ids, parameters, stop, admission, received).await
            }));
        }
    }
    Ok(starts)
}

async fn whole(envelope: &Envelope, starts: Vec<Start>) -> Result<Response, GenerationError> {
    let finished = try_join_all(starts.into_iter().map(collect)).await?;
    let mut usages = Vec::new();
    let mut choices = Vec::new();
    for (index, (text, tokens, finish)) in finished.into_iter().enumerate() {
        let content = match envelope.shape {
            Shape::Completion => Content::Text(text),
            Shape::Chat => Content::Message(Message { role: "assistant", content: text, refusal: None }),
        };
        let mut choice = ChoiceWriter::new(index).choice(envelope, content, &tokens);
        choice.finish_reason = Some(finish_reason(&finish));
        choice.seed = Some(finish.seed);
        choices.push(choice);
        usages.push(finish.usage.unwrap_or_default());
    }
    let usage = UsageBody::sum(&usages, envelope.choices_per_prompt);
    let object = if envelope.shape == Shape::Chat { "chat.completion" } else { "text_completion" };
    Ok(Json(envelope.answer(object, choices, Some(Some(usage)))).into_response())
}

async fn collect(start: Start) -> Result<(String, Vec<Token>, Finish), GenerationError> {
    let mut generation = start.await?;
    let mut text = String::new();
    let mut tokens = Vec::new();
    while let Some(event) = generation.next().await {
        match event? {
            GenerationEvent::Delta { text: more, tokens: newer } => {
                text.push_str(&more);
                tokens.extend(newer);
            }
            GenerationEvent::Finish(finish) => return Ok((text, tokens, finish)),
        }
    }
    Err(GenerationError::Internal { message: "the generation ended without finishing".into() })
}

impl Envelope {
    pub(super) fn answer(
        &self,
        object: &'static str,
        choices: Vec<Choice>,
        usage: Option<Option<UsageBody>>,
    ) -> Answer<'_> {
        Answer {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model.info.name,
            system_fingerprint: concat!("windlass-", env!("CARGO_PKG_VERSION")),
            choices,
            usage,
        }
    }

    pub(super) fn usage(&self, usages: &[Usage]) -> UsageBody {
        UsageBody::sum(usages, self.choices_per_prompt)
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        self.model.tokenizer.as_deref()
    }
}

/// Writes one choice, in one part or several.
pub(super) struct ChoiceWriter {
    index: usize,
    logprobs: LogprobWriter,
}

impl ChoiceWriter {
    pub(super) fn new(index: usize) -> Self {
        Self { index, logprobs: LogprobWriter::default() }
    }

    /// The part with this content, made of these tokens.
    pub(super) fn choice(&mut self, envelope: &Envelope, content: Content, tokens: &[Token]) -> Choice {
        let Extras { depths, exit_values, token_ids, logprobs } = envelope.extras;
        Choice {
            index: self.index,
            content,
            logprobs: logprobs.then(|| self.logprobs.write(envelope.shape, envelope.tokenizer(), tokens)),
            finish_reason: None,
            seed: None,
            extras: TokenExtras {
                depths: depths.then(|| tokens.iter().map(|token| token.depth).collect()),
                exit_values: exit_values
                    .then(|| tokens.iter().map(|token| token.exit_values.clone()).collect()),
                token_ids: token_ids.then(|| tokens.iter().map(|token| token.id).collect()),
            },
        }
    }
}

pub(super) fn finish_reason(finish: &Finish) -> &'static str {
    match finish.reason() {
        FinishReason::Length => "length",
        FinishReason::Timeout => "timeout",
        FinishReason::Stop | FinishReason::Unspecified => "stop",
    }
}

pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
