use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use windlass_jobs::JobsError;

/// The status a client is told.
pub(super) fn job_status(error: JobsError) -> Status {
    let message = error.to_string();
    match error {
        JobsError::Invalid { field, message: description } => {
            let details = ErrorDetails::with_bad_request_violation(field, description);
            Status::with_error_details(Code::InvalidArgument, message, details)
        }
        JobsError::NotFound { .. } => Status::not_found(message),
        JobsError::KeyTaken { .. } => Status::already_exists(message),
        JobsError::TooMany { .. } | JobsError::TooManyOfOwner { .. } => Status::resource_exhausted(message),
        JobsError::BrokenOff { .. } => Status::cancelled(message),
        JobsError::Store(_) | JobsError::Blob { .. } => {
            tracing::warn!(message, "a request about jobs failed");
            Status::unavailable(message)
        }
        JobsError::Damaged { .. } => {
            tracing::error!(message, "a request about jobs failed");
            Status::internal(message)
        }
    }
}
