use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::generation::GenerationError;
use crate::metrics;

/// The status a client is told; counts it.
pub(super) fn status(error: &GenerationError) -> Status {
    metrics::failure(error.code());
    let message = error.to_string();
    match error {
        GenerationError::Invalid { field: Some(field), .. } => {
            let details = ErrorDetails::with_bad_request_violation(field.clone(), message.clone());
            Status::with_error_details(Code::InvalidArgument, message, details)
        }
        GenerationError::Invalid { field: None, .. } => Status::invalid_argument(message),
        GenerationError::UnknownModel { .. } => Status::not_found(message),
        GenerationError::Busy { .. } => Status::resource_exhausted(message),
        GenerationError::Unavailable { .. } => Status::unavailable(message),
        GenerationError::WorkerLost { .. } => Status::aborted(message),
        GenerationError::Internal { .. } => Status::internal(message),
    }
}
