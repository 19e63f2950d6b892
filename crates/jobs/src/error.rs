use windlass_store::StoreError;

/// Why something about jobs was not done, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// The request is at fault: correct it.
    #[error("{field}: {message}")]
    Invalid {
        /// The field at fault.
        field: String,
        /// What is wrong with it, and what would be right.
        message: String,
    },
    /// There is no such job, or no longer.
    #[error("there is no job '{id}'")]
    NotFound {
        /// As it was asked for.
        id: String,
    },
    /// The idempotency key names a job of other content.
    #[error("idempotency_key: '{key}' was used for job {id}, whose content differs: use another key")]
    KeyTaken {
        /// The key.
        key: String,
        /// The job there is.
        id: String,
    },
    /// Later it may work.
    #[error("{open} jobs have not ended, and the limit (jobs_max_open) is {limit}: try again later")]
    TooMany {
        /// Jobs that have not ended.
        open: usize,
        /// Most of them.
        limit: usize,
    },
    /// The same for the jobs of one party.
    #[error(
        "{open} jobs of API key '{owner}' have not ended, and its limit (max_open_jobs) is {limit}: try again later"
    )]
    TooManyOfOwner {
        /// Name of the party.
        owner: String,
        /// Its jobs that have not ended.
        open: usize,
        /// Most of them.
        limit: usize,
    },
    /// The submission broke off; nothing of it is kept.
    #[error("the submission broke off: {reason}")]
    BrokenOff {
        /// Why.
        reason: String,
    },
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object store did not do it.
    #[error("cannot {action} {object}: {}", with_cause(source))]
    Blob {
        /// `open`, `read`, `write`, `list` or `delete`.
        action: &'static str,
        /// Which object or folder.
        object: String,
        /// Its words.
        source: object_store::Error,
    },
    /// What is stored makes no sense.
    #[error("{object} is damaged: {reason}")]
    Damaged {
        /// The key or the object.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What the object store says, and what happened, which is said by the innermost error alone.
fn with_cause(error: &object_store::Error) -> String {
    let said = error.to_string();
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let cause = cause.to_string();
    if said.contains(&cause) { said } else { format!("{said}: {cause}") }
}

impl JobsError {
    /// The request's field `field` is at fault.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }

    pub(crate) fn damaged(object: impl Into<String>, reason: &impl ToString) -> Self {
        Self::Damaged { object: object.into(), reason: reason.to_string() }
    }

    /// Whether whoever works on a job cannot be helped by trying again: what it needs is gone or no use, or its output cannot be
    /// written. What is read and deleted is the server's own: if that is not allowed, it is not the job's fault.
    pub(crate) fn is_final(&self) -> bool {
        use object_store::Error::{
            InvalidPath, NotFound, NotImplemented, NotSupported, PermissionDenied, Unauthenticated,
        };
        match self {
            Self::Blob { source: NotFound { .. }, .. } | Self::Invalid { .. } | Self::Damaged { .. } => true,
            Self::Blob { action: "open" | "write", source, .. } => matches!(
                source,
                InvalidPath { .. }
                    | NotSupported { .. }
                    | NotImplemented { .. }
                    | PermissionDenied { .. }
                    | Unauthenticated { .. }
            ),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_stores_error_says_what_happened() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let source = Box::new(std::io::Error::other(refused));
        let source = object_store::Error::Generic { store: "S3", source };
        let error = JobsError::Blob { action: "read", object: "a".into(), source }.to_string();
        assert_eq!(error.matches("connection refused").count(), 1, "{error}");
    }

    #[test]
    fn what_is_not_allowed_now_is_final_for_outputs_alone() {
        let denied = |action| {
            let source = object_store::Error::PermissionDenied { path: "a".into(), source: "403".into() };
            JobsError::Blob { action, object: "a".into(), source }
        };
        assert!(denied("write").is_final());
        assert!(!denied("read").is_final() && !denied("delete").is_final());
        let source = object_store::Error::NotFound { path: "a".into(), source: "404".into() };
        assert!(JobsError::Blob { action: "read", object: "a".into(), source }.is_final());
    }
}
