use std::time::Duration;

use crate::admission::QueueError;
use crate::text::TextError;

/// When to come back where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a generation cannot begin or go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GenerationError {
    /// The request is at fault.
    #[error("{}{message}", prefix(field.as_deref()))]
    Invalid {
        /// Named as in an HTTP request to `/v1/completions`; the other fronts rename it.
        field: Option<String>,
        /// What is wrong with it, without its name.
        message: String,
    },
    #[error("model '{model}' is not served: {served}")]
    UnknownModel { model: String, served: String },
    /// Too much to do; after a while it may work.
    #[error("{message}")]
    Busy { message: String, retry_after: Duration },
    /// Over a limit of the caller's API key.
    #[error("{message}")]
    Limited { message: String, retry_after: Duration },
    /// The time that the request allows passed before it began.
    #[error("{message}")]
    Late { message: String },
    /// Nobody there to do it.
    #[error("{message}")]
    Unavailable { message: String },
    /// A worker was lost, and no other took over.
    #[error("{message}")]
    WorkerLost { message: String },
    #[error("{message}")]
    Internal { message: String },
}

impl GenerationError {
    /// Every [`GenerationError::code`].
    pub(crate) const CODES: [&str; 8] = [
        "invalid_request",
        "model_not_found",
        "busy",
        "rate_limit_exceeded",
        "deadline_exceeded",
        "unavailable",
        "worker_lost",
        "internal",
    ];

    /// The request's field `field` is at fault.
    pub(crate) fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::Invalid { field: Some(field.to_owned()), message: message.into() }
    }

    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self::Busy { message: message.into(), retry_after: RETRY_AFTER }
    }

    /// The same error with the field, if there is one, under another front's name for it.
    pub(crate) fn rename_field(self, rename: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Invalid { field, message } => Self::Invalid { field: field.map(rename), message },
            other => other,
        }
    }

    /// A short name for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid_request",
            Self::UnknownModel { .. } => "model_not_found",
            Self::Busy { .. } => "busy",
            Self::Limited { .. } => "rate_limit_exceeded",
            Self::Late { .. } => "deadline_exceeded",
            Self::Unavailable { .. } => "unavailable",
            Self::WorkerLost { .. } => "worker_lost",
            Self::Internal { .. } => "internal",
        }
    }
}

fn prefix(field: Option<&str>) -> String {
    field.map(|field| format!("{field}: ")).unwrap_or_default()
}

impl From<QueueError> for GenerationError {
    fn from(error: QueueError) -> Self {
        let message = error.to_string();
        match error {
            QueueError::Full { retry_after, .. }
            | QueueError::Displaced { retry_after }
            | QueueError::TimedOut { retry_after, .. } => Self::Busy { message, retry_after },
            QueueError::Late => Self::Late { message },
        }
    }
}

impl From<TextError> for GenerationError {
    fn from(error: TextError) -> Self {
        match error {
            TextError::Template { .. } => Self::invalid("messages", error.to_string()),
            TextError::Encode { .. } => Self::invalid("prompt", error.to_string()),
            TextError::Tokenizer { .. } | TextError::Config { .. } | TextError::Decode { .. } => {
                Self::Internal { message: error.to_string() }
            }
        }
    }
}
