//! Answers items of jobs, as any other request is answered.

use async_trait::async_trait;
use tokio::time::Instant;
use windlass_jobs::{Execute, ExecuteError, Task};
use windlass_proto::v1::{Chat, ItemAnswer, TokenIds, job_item};

use crate::generation::{GenerationError, GenerationEvent, Generator, Prompt, Wanted};
use crate::metrics;
use crate::security::Caller;

/// A generator of its own, whose limits are those of jobs.
pub(crate) struct Items {
    pub(crate) generator: Generator,
}

#[async_trait]
impl Execute for Items {
    fn can_answer(&self, model: &str) -> bool {
        let served = self.generator.model(model).map_err(|error| verdict(&error));
        !matches!(served, Err(ExecuteError::Transient { .. }))
    }

    fn is_away(&self, model: &str) -> bool {
        !self.can_answer(model) && !self.generator.drains(model)
    }

    async fn execute(&self, task: Task) -> Result<ItemAnswer, ExecuteError> {
        let owner = task.owner.clone();
        let answer = self.answer(task).await.map_err(|error| verdict(&error));
        if let (Some(owner), Ok(ItemAnswer { usage: Some(usage), .. })) = (&owner, &answer) {
            metrics::key_tokens(owner, u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens));
        }
        metrics::job_item(match &answer {
            Ok(_) => "answered",
            Err(ExecuteError::Final { .. }) => "failed",
            Err(ExecuteError::Transient { .. }) => "again",
        });
        answer
    }
}

impl Items {
    async fn answer(&self, task: Task) -> Result<ItemAnswer, GenerationError> {
        let received = Instant::now();
        let generator = &self.generator;
        let model = generator.model(&task.model)?;
        let prompts = [generator.prompt_ids(&model, read_prompt(task.prompt)?).await?];
        let wanted = Wanted { prompts: &prompts, choices: 1, parameters: &task.parameters, stop: &task.stop };
        let admission = generator.admit(&Caller::anyone(), &model, wanted, received).await?;
        let [prompt] = prompts;
        let mut generation =
            generator.start(model, prompt, task.parameters, task.stop, admission, received).await?;
        let mut answer = ItemAnswer::default();
        while let Some(event) = generation.next().await {
            match event? {
                GenerationEvent::Delta { text, tokens } => {
                    answer.text.push_str(&text);
                    answer.token_ids.extend(tokens.iter().map(|token| token.id));
                    answer.depths.extend(tokens.iter().map(|token| token.depth));
                }
                GenerationEvent::Finish(finish) => {
                    answer.finish_reason = finish.reason;
                    answer.usage = finish.usage;
                    answer.seed = finish.seed;
                    return Ok(answer);
                }
            }
        }
        Err(GenerationError::WorkerLost { message: "the generation ended without finishing".into() })
    }
}

fn read_prompt(prompt: job_item::Prompt) -> Result<Prompt, GenerationError> {
    match prompt {
        job_item::Prompt::Text(text) => Ok(Prompt::Text(text)),
        job_item::Prompt::TokenIds(TokenIds { ids }) => Ok(Prompt::TokenIds(ids)),
        job_item::Prompt::Chat(Chat { messages }) => {
            Prompt::chat(messages.into_iter().map(|message| (message.role, message.content)).collect())
        }
    }
}

/// Whether the item is at fault, or whoever should answer it is away.
fn verdict(error: &GenerationError) -> ExecuteError {
    let message = error.to_string();
    match error {
        // A worker that fails at an item would do so again.
        GenerationError::Invalid { .. } | GenerationError::Internal { .. } => {
            ExecuteError::Final { code: error.code().to_owned(), message }
        }
        // An unknown model may be one whose workers have not come yet.
        _ => ExecuteError::Transient { message },
    }
}
