use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::generation::GenerationError;
use crate::metrics;

/// The status a client is told; counts it.
pub(super) fn status(error: GenerationError) -> Status {
    metrics::failure(error.code());
    let error = error.rename_field(rename);
    let message = error.to_string();
    match error {
        GenerationError::Invalid { field: Some(field), message: description } => {
            let details = ErrorDetails::with_bad_request_violation(field, description);
            Status::with_error_details(Code::InvalidArgument, message, details)
        }
        GenerationError::Invalid { field: None, .. } => Status::invalid_argument(message),
        GenerationError::UnknownModel { .. } => Status::not_found(message),
        GenerationError::Busy { retry_after, .. } | GenerationError::Limited { retry_after, .. } => {
            let details = ErrorDetails::with_retry_info(Some(retry_after));
            Status::with_error_details(Code::ResourceExhausted, message, details)
        }
        GenerationError::Late { .. } => Status::deadline_exceeded(message),
        GenerationError::Unavailable { .. } => Status::unavailable(message),
        GenerationError::WorkerLost { .. } => Status::aborted(message),
        GenerationError::Internal { .. } => Status::internal(message),
    }
}

/// The field, as the gRPC API names it.
fn rename(field: String) -> String {
    if field == "reasoning_effort" { "effort".into() } else { field }
}
