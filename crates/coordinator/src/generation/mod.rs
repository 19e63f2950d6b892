//! One generation from prompt to finish, the same for both fronts.
//!
//! Knows neither HTTP nor the public gRPC service; what it cannot check without an engine the worker checks.

mod admission;
mod error;
mod limits;
mod meter;
mod prompt;
mod run;
mod sequences;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use windlass_proto::v1::{CheckParametersRequest, GenerationParameters};

pub(crate) use admission::Admission;
pub(crate) use error::GenerationError;
pub(crate) use prompt::Prompt;
pub(crate) use run::{Generation, GenerationEvent};

use crate::admission::{Demand, Queue, QueueLimits};
use crate::config::RequestLimits;
use crate::dispatch::{MigrationSettings, Task, TaskStream, refusal};
use crate::random::random_seed;
use crate::registry::{Model, Registry};
use crate::security::Caller;
use crate::text::TextStream;
use meter::Meter;
use run::aborted;
use sequences::Sequences;

/// Longer texts become tokens, and tokens texts, off the threads that serve connections.
const LONG_TEXT_BYTES: usize = 16 << 10;
/// How long a worker may take to look at parameters.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// What one request asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) prompts: &'a [Vec<u32>],
    /// Answers to each prompt.
    pub(crate) choices: u32,
    pub(crate) parameters: &'a GenerationParameters,
    pub(crate) stop: &'a [String],
}

/// Begins generations, within the limits.
pub(crate) struct Generator {
    registry: Arc<Registry>,
    queue: Arc<Queue>,
    migration: MigrationSettings,
    request_limits: RequestLimits,
    abort: watch::Receiver<bool>,
}

impl Generator {
    /// Running and waiting generations end with an error once `abort` turns true.
    pub(crate) fn new(
        registry: Arc<Registry>,
        limits: QueueLimits,
        migration: MigrationSettings,
        request_limits: RequestLimits,
        abort: watch::Receiver<bool>,
    ) -> Self {
        Self { registry, queue: Queue::new(limits), migration, request_limits, abort }
    }

    /// The model of this name; for the empty name, the only one served.
    pub(crate) fn model(&self, name: &str) -> Result<Arc<Model>, GenerationError> {
        let mut served = self.registry.served_models();
        if let Some(model) = served.remove(name) {
            return Ok(model);
        }
        if name.is_empty() && served.len() == 1 {
            return Ok(served.pop_first().expect("there is one").1);
        }
        if self.registry.models().contains_key(name) {
            let message = format!("no worker of model '{name}' is ready");
            return Err(GenerationError::Unavailable { message });
        }
        if served.is_empty() {
            let message = "no worker is ready: try again when /ready answers 200".into();
            return Err(GenerationError::Unavailable { message });
        }
        let names = served.into_keys().collect::<Vec<_>>().join(", ");
        if name.is_empty() {
            let message = format!("it is required where several models are served: use one of {names}");
            return Err(GenerationError::invalid("model", message));
        }
        Err(GenerationError::UnknownModel { model: name.to_owned(), served: format!("use one of {names}") })
    }

    /// Whether a worker of this name's model takes no more requests and may still have some.
    pub(crate) fn drains(&self, name: &str) -> bool {
        self.registry.drains(name)
    }

    /// Refuses more choices of a prompt than the server allows.
    pub(crate) fn check_choices(&self, choices: u32) -> Result<(), GenerationError> {
        limits::check_choices(&self.request_limits, choices)
    }

    /// Refuses a request that there is no room for now, before anything is done for it.
    pub(crate) fn expect_room(
        &self,
        prompts: usize,
        choices: u32,
        parameters: &GenerationParameters,
    ) -> Result<(), GenerationError> {
        let wanted = Sequences::new(prompts, choices);
        let limit = self.queue.limits().running_sequences;
        if wanted.count() > limit {
            return Err(wanted.too_many(&format!("the server's limit of {limit} (max_concurrent_requests)")));
        }
        Ok(self.queue.expect_room(wanted.count(), parameters.priority.unwrap_or(0))?)
    }

    /// Refuses what no request of this model can have, as it would be refused. Where no worker answers in time, what only a worker
    /// can tell is left open.
    pub(crate) async fn check_parameters(
        &self,
        model: &Model,
        parameters: &GenerationParameters,
        stop: &[String],
    ) -> Result<(), GenerationError> {
        limits::check_request(&self.request_limits, &[], parameters, stop)?;
        let Some(worker) = self.registry.choose(model, None, 0, &[]) else { return Ok(()) };
        let request = CheckParametersRequest { parameters: Some(parameters.clone()) };
        let answer = timeout(CHECK_TIMEOUT, worker.client().check_parameters(request)).await;
        answer.ok().and_then(Result::err).and_then(|status| refusal(&status)).map_or(Ok(()), Err)
    }

    /// Waits until all that is wanted may begin. What can never fit is refused at once. `received`: when the request came in.
    pub(crate) async fn admit(
        &self,
        caller: &Caller,
        model: &Model,
        wanted: Wanted<'_>,
        received: Instant,
    ) -> Result<Arc<Admission>, GenerationError> {
        let Wanted { prompts, choices, parameters, stop } = wanted;
        check_priority(caller, parameters.priority)?;
        limits::check_request(&self.request_limits, prompts, parameters, stop)?;
        for prompt in prompts {
            fit_context(model, prompt.len(), parameters.max_tokens)?;
        }
        let wanted = Sequences::new(prompts.len(), choices);
        let sequences = wanted.count();
        let deadline = deadline(parameters, received);
        let expected = |prompt: &Vec<u32>| model.expected_core_iterations(prompt.len(), parameters);
        let core_iterations = prompts.iter().map(expected).fold(0, u64::saturating_add);
        let core_iterations = core_iterations.saturating_mul(choices.into());
        if let Some(limit) =
            self.queue.limits().queued_core_iterations.filter(|limit| core_iterations > *limit)
        {
            let message = format!(
                "the request is expected to take {core_iterations} core iterations, and the server's \
                 max_queued_core_iterations is {limit}: ask for fewer tokens or less depth"
            );
            return Err(GenerationError::invalid("max_tokens", message));
        }
        let priority = parameters.priority.unwrap_or(0);
        let demand = Demand { sequences, core_iterations, priority, deadline };
        let allowance = caller.admit(sequences).map_err(|over| wanted.over_limit(over))?;
        let mut abort = self.abort.clone();
        let permit = tokio::select! {
            permit = self.queue.admit(demand) => permit?,
            error = aborted(&mut abort) => return Err(error),
        };
        Ok(Arc::new(Admission::new(permit, allowance)))
    }

    /// The token ids of a prompt.
    pub(crate) async fn prompt_ids(
        &self,
        model: &Arc<Model>,
        prompt: Prompt,
    ) -> Result<Vec<u32>, GenerationError> {
        let model = Arc::clone(model);
        with_text(prompt.bytes(), move || prompt.ids(&model)).await?
    }

    /// Those of each of several.
    pub(crate) async fn all_prompt_ids(
        &self,
        model: &Arc<Model>,
        prompts: Vec<Prompt>,
    ) -> Result<Vec<Vec<u32>>, GenerationError> {
        let model = Arc::clone(model);
        let bytes = prompts.iter().map(Prompt::bytes).sum();
        with_text(bytes, move || prompts.into_iter().map(|prompt| prompt.ids(&model)).collect()).await?
    }

    /// Starts generating; returns once a worker answered with a first event. `received`: when the request came in.
    pub(crate) async fn start(
        &self,
        model: Arc<Model>,
        prompt: Vec<u32>,
        mut parameters: GenerationParameters,
        stop: Vec<String>,
        admission: Arc<Admission>,
        received: Instant,
    ) -> Result<Generation, GenerationError> {
        let text = text_stream(&model, &prompt, stop)?;
        let seed = *parameters.sampling.get_or_insert_default().seed.get_or_insert_with(random_seed);
        let mut meter = Meter::new(Arc::clone(&model), prompt.len(), &parameters, received, admission);
        let deadline = deadline(&parameters, received);
        let task = Task::new(model, prompt, parameters, deadline);
        let mut abort = self.abort.clone();
        let started = tokio::select! {
            started = self.begin(task, &mut meter) => started,
            error = aborted(&mut abort) => Err(error),
        };
        let events = started.inspect_err(|error| meter.refused(error.code()))?;
        Ok(Generation::new(events, text, meter, seed, abort))
    }

    /// Sends the task to a worker; returns once there is a first event.
    async fn begin(&self, task: Task, meter: &mut Meter) -> Result<TaskStream, GenerationError> {
        let mut events = TaskStream::start(Arc::clone(&self.registry), self.migration, task).await?;
        meter.taken();
        events.begin().await?;
        Ok(events)
    }
}

/// When the request's time is over.
fn deadline(parameters: &GenerationParameters, received: Instant) -> Option<Instant> {
    let allowed = parameters.timeout_ms.filter(|timeout_ms| *timeout_ms > 0)?;
    Some(received + Duration::from_millis(allowed.into()))
}

/// Refuses what no worker can hold, as a worker would.
fn fit_context(model: &Model, prompt: usize, max_tokens: Option<u32>) -> Result<(), GenerationError> {
    let context = model.info.context_length as usize;
    if prompt >= context {
        let message = format!("it has {prompt} tokens: use at most {}", context.saturating_sub(1));
        return Err(GenerationError::invalid("prompt", message));
    }
    match max_tokens.map(|max_tokens| max_tokens as usize) {
        Some(max_tokens) if prompt + max_tokens > context => {
            let left = context - prompt;
            let message = format!(
                "{max_tokens} and a prompt of {prompt} tokens exceed the context of {context}: use at most {left}"
            );
            Err(GenerationError::invalid("max_tokens", message))
        }
        _ => Ok(()),
    }
}

/// Refuses a priority above what the caller's key allows. A request without one has 0.
fn check_priority(caller: &Caller, priority: Option<i32>) -> Result<(), GenerationError> {
    let priority = priority.unwrap_or_default();
    match caller.priority_max() {
        Some(max) if priority > max => {
            let message = format!("{priority} is above what this API key may ask for: use at most {max}");
            Err(GenerationError::invalid("priority", message))
        }
        _ => Ok(()),
    }
}

/// Does something that takes the longer the more text there is.
pub(crate) async fn with_text<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, GenerationError> {
    if bytes < LONG_TEXT_BYTES {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| GenerationError::Internal { message: error.to_string() })
}

fn text_stream(
    model: &Model,
    prompt: &[u32],
    stop: Vec<String>,
) -> Result<Option<TextStream>, GenerationError> {
    if stop.iter().any(String::is_empty) {
        return Err(GenerationError::invalid("stop", "a stop string is empty: leave it out"));
    }
    if model.tokenizer.is_none() && !stop.is_empty() {
        let message = format!("model '{}' has no tokenizer: use stop_token_ids", model.info.name);
        return Err(GenerationError::invalid("stop", message));
    }
    Ok(model.tokenizer.as_ref().map(|tokenizer| TextStream::new(Arc::clone(tokenizer), prompt, stop)))
}
