use std::error::Error;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::transport::what_broke;

/// Why a call failed, by what the caller can do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("'{address}' is not an address: use host:port")]
    Address {
        /// As it was given.
        address: String,
    },
    /// The scheme contradicts the configuration.
    #[error("the scheme of '{address}' contradicts the rest: https needs a CA, and http takes none")]
    Scheme {
        /// As it was given.
        address: String,
    },
    /// The server wants an API key, or another one.
    #[error("{message}")]
    Unauthenticated {
        /// What the server says.
        message: String,
    },
    /// The API key is good, but not for this.
    #[error("{message}")]
    PermissionDenied {
        /// What the server says.
        message: String,
    },
    /// The request is at fault: correct it.
    #[error("{message}")]
    InvalidArgument {
        /// The field at fault, if the server names one.
        field: Option<String>,
        /// What is wrong with it.
        message: String,
    },
    /// No such model, or no such job.
    #[error("{message}")]
    NotFound {
        /// What is missing, and what there is instead.
        message: String,
    },
    /// The server has too much to do: try again later.
    #[error("{message}")]
    Busy {
        /// What the server says.
        message: String,
    },
    /// The server or its workers cannot be reached: try again later.
    #[error("{message}")]
    Unavailable {
        /// What is away.
        message: String,
    },
    /// The generation broke off after its first token: generate again.
    #[error("{message}")]
    Interrupted {
        /// Why.
        message: String,
    },
    /// The server failed, or does not speak this API.
    #[error("{message}")]
    Failed {
        /// The status code's description.
        code: String,
        /// What the server says.
        message: String,
    },
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        if let Some(broken) = status.source() {
            // Made on this side: the server said nothing.
            return Self::Unavailable { message: what_broke(broken, false) };
        }
        let message = status.message().to_owned();
        match status.code() {
            Code::InvalidArgument => {
                let violations = status.get_details_bad_request().map(|request| request.field_violations);
                let field =
                    violations.and_then(|list| list.into_iter().next()).map(|violation| violation.field);
                Self::InvalidArgument { field, message }
            }
            Code::Unauthenticated => Self::Unauthenticated { message },
            Code::PermissionDenied => Self::PermissionDenied { message },
            Code::NotFound => Self::NotFound { message },
            Code::ResourceExhausted => Self::Busy { message },
            Code::Unavailable => Self::Unavailable { message },
            Code::Aborted => Self::Interrupted { message },
            code => {
                let code = code.description().to_owned();
                let message = if message.is_empty() { code.clone() } else { message };
                Self::Failed { code, message }
            }
        }
    }
}
