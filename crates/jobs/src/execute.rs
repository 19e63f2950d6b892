use async_trait::async_trait;
use windlass_proto::v1::{GenerationParameters, ItemAnswer, job_item};

/// One item, ready to be answered. Its sampler's seed is set, so that doing it again gives the same answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Whose job it is of, if anyone's.
    pub owner: Option<String>,
    /// Empty: the only model served.
    pub model: String,
    /// What to continue.
    pub prompt: job_item::Prompt,
    /// How.
    pub parameters: GenerationParameters,
    /// The answer ends before the first of these.
    pub stop: Vec<String>,
}

/// Answers items.
#[async_trait]
pub trait Execute: Send + Sync {
    /// Whether anyone serves the model now, named as in [`Task::model`]. Jobs of one that nobody serves wait.
    fn can_answer(&self, model: &str) -> bool;

    /// Whether nobody is there any more who may be at work on items of the model.
    fn is_away(&self, model: &str) -> bool {
        !self.can_answer(model)
    }

    /// The answer; dropping the future gives the item up.
    async fn execute(&self, task: Task) -> Result<ItemAnswer, ExecuteError>;
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// There never will be: this is the item's result.
    #[error("{code}: {message}")]
    Final {
        /// As in HTTP errors.
        code: String,
        /// What is wrong with the item.
        message: String,
    },
    /// Nobody has time or can be reached: the item is tried again.
    #[error("{message}")]
    Transient {
        /// What is missing.
        message: String,
    },
}
