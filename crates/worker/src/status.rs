//! From errors to gRPC statuses.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use windlass_engine::{InvalidRequest, SubmitError};

use crate::drain::{Draining, ShuttingDown};
use crate::engine_handle::EngineError;

/// When a full queue is worth another try.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// INVALID_ARGUMENT with the field in a `google.rpc.BadRequest`.
pub(crate) fn invalid(error: InvalidRequest) -> Status {
    at_fault(Code::InvalidArgument, error)
}

fn at_fault(code: Code, error: InvalidRequest) -> Status {
    let message = error.to_string();
    let details = ErrorDetails::with_bad_request_violation(error.field, error.reason);
    Status::with_error_details(code, message, details)
}

/// The status of a call that the engine's thread did not fulfil.
pub(crate) fn not_done(error: EngineError) -> Status {
    let message = error.to_string();
    match error {
        EngineError::Refused(SubmitError::Invalid(error)) => invalid(error),
        EngineError::Refused(SubmitError::TooLarge(error)) => at_fault(Code::FailedPrecondition, error),
        EngineError::Refused(SubmitError::QueueFull { .. }) | EngineError::InboxFull { .. } => {
            let details = ErrorDetails::with_retry_info(Some(RETRY_DELAY));
            Status::with_error_details(Code::ResourceExhausted, message, details)
        }
        EngineError::Stopped => Status::unavailable(message),
        EngineError::NoAnswer { .. } => Status::deadline_exceeded(message),
    }
}

/// The status that ends a stream that is to go on at another worker.
pub(crate) fn handed_over() -> Status {
    Status::unavailable("handed over: this worker is draining, go on at another")
}

/// The status of a request that a draining worker does not take.
pub(crate) fn draining(error: Draining) -> Status {
    Status::unavailable(error.to_string())
}

/// The status of an undrain that comes too late.
pub(crate) fn shutting_down(error: ShuttingDown) -> Status {
    Status::failed_precondition(error.to_string())
}

/// The status that ends a stream whose engine is gone.
pub(crate) fn cut_off() -> Status {
    Status::internal("the engine has stopped before the generation was finished")
}
