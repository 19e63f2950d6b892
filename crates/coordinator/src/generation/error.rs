use crate::text::TextError;

/// Why a generation cannot begin or go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GenerationError {
    /// The request is at fault.
    #[error("{message}")]
    Invalid {
        /// Named as in an HTTP request.
        field: Option<String>,
        message: String,
    },
    #[error("model '{model}' is not served: {served}")]
    UnknownModel { model: String, served: String },
    /// Too much to do; later it may work.
    #[error("{message}")]
    Busy { message: String },
    /// Nobody there to do it.
    #[error("{message}")]
    Unavailable { message: String },
    /// A worker was lost after the first token.
    #[error("{message}")]
    WorkerLost { message: String },
    #[error("{message}")]
    Internal { message: String },
}

impl GenerationError {
    /// The request's field `field` is at fault.
    pub(crate) fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::Invalid { field: Some(field.to_owned()), message: message.into() }
    }

    /// A short name for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid_request",
            Self::UnknownModel { .. } => "model_not_found",
            Self::Busy { .. } => "busy",
            Self::Unavailable { .. } => "unavailable",
            Self::WorkerLost { .. } => "worker_lost",
            Self::Internal { .. } => "internal",
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
