use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::generation::GenerationError;
use crate::registry::{Loss, is_broken, reason, was_never_sent};

/// Why a worker did not take a request or did not finish it.
#[derive(Debug)]
pub(super) enum Setback {
    /// The request is at fault, at whatever worker.
    Refused(GenerationError),
    /// The request is too much for the worker's memory, and perhaps not for another's.
    TooLarge(GenerationError),
    /// The worker has no room.
    Busy { message: String },
    /// The worker is lost to the request.
    Lost { loss: Loss, suspicious: bool, message: String },
    /// No worker is ready.
    Nobody,
}

impl Setback {
    /// What a worker's status, or a broken connection, means.
    pub(super) fn of(status: &Status) -> Self {
        let message = reason(status);
        if is_broken(status) {
            let suspicious = !was_never_sent(status);
            return Self::Lost { loss: Loss::Connection, suspicious, message };
        }
        match status.code() {
            Code::InvalidArgument => Self::Refused(invalid(status, message)),
            Code::FailedPrecondition => Self::TooLarge(invalid(status, message)),
            Code::ResourceExhausted => Self::Busy { message },
            Code::Unavailable => Self::Lost { loss: Loss::Handover, suspicious: false, message },
            _ => Self::Lost { loss: Loss::Engine, suspicious: true, message },
        }
    }

    /// The worker was lost with all its requests.
    ///
    /// Silence is of the network or the machine, and can meet many workers at once: a request that hangs or breaks its engine
    /// leaves the worker able to say so.
    pub(super) fn lost(loss: Loss) -> Self {
        let message = match loss {
            Loss::Silence => "it gave no sign of life",
            Loss::Connection => "the connection broke",
            Loss::Handover => "it serves another model now",
            Loss::Engine => "its engine failed",
        };
        let suspicious = matches!(loss, Loss::Connection | Loss::Engine);
        Self::Lost { loss, suspicious, message: message.into() }
    }

    /// The worker ended the stream in the middle.
    pub(super) fn cut_short() -> Self {
        let message = "it ended the generation without finishing it".into();
        Self::Lost { loss: Loss::Connection, suspicious: true, message }
    }

    /// Of several workers' setbacks the one that the client is told: that it may try later says most.
    pub(super) fn or_worse(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Busy { .. }, _) | (Self::Lost { .. }, Self::TooLarge(_)) => self,
            _ => other,
        }
    }

    /// What a client is told whose request no worker took.
    pub(super) fn into_error(self, model: &str) -> GenerationError {
        match self {
            Self::Refused(error) | Self::TooLarge(error) => error,
            Self::Busy { message } => {
                GenerationError::busy(format!("all workers of model '{model}' are busy: {message}"))
            }
            Self::Lost { message, .. } => GenerationError::Unavailable {
                message: format!("no worker of model '{model}' took the request: {message}"),
            },
            Self::Nobody => {
                GenerationError::Unavailable { message: format!("no worker of model '{model}' is ready") }
            }
        }
    }
}

/// The fault that a worker finds in what it was asked, if that is what the status says.
pub(crate) fn refusal(status: &Status) -> Option<GenerationError> {
    match Setback::of(status) {
        Setback::Refused(error) => Some(error),
        _ => None,
    }
}

fn invalid(status: &Status, message: String) -> GenerationError {
    let violations = status.get_details_bad_request().map(|request| request.field_violations);
    match violations.and_then(|violations| violations.into_iter().next()) {
        Some(violation) => {
            GenerationError::Invalid { field: Some(violation.field), message: violation.description }
        }
        None => GenerationError::Invalid { field: None, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_another_worker_can_mend_is_tried_elsewhere() {
        assert!(matches!(Setback::of(&Status::invalid_argument("x")), Setback::Refused(_)));
        assert!(matches!(Setback::of(&Status::failed_precondition("x")), Setback::TooLarge(_)));
        assert!(matches!(Setback::of(&Status::resource_exhausted("x")), Setback::Busy { .. }));
        let of = |status| match Setback::of(&status) {
            Setback::Lost { loss, suspicious, .. } => (loss, suspicious),
            other => panic!("{other:?}"),
        };
        assert_eq!(of(Status::unavailable("draining")), (Loss::Handover, false));
        assert_eq!(of(Status::internal("panic")), (Loss::Engine, true));
        let broken = |kind| Status::from_error(Box::new(std::io::Error::from(kind)));
        assert_eq!(of(broken(std::io::ErrorKind::ConnectionReset)), (Loss::Connection, true));
        let is_suspicious = |loss| matches!(Setback::lost(loss), Setback::Lost { suspicious: true, .. });
        assert!(is_suspicious(Loss::Connection) && is_suspicious(Loss::Engine));
        assert!(!is_suspicious(Loss::Silence) && !is_suspicious(Loss::Handover));
        let refused = tonic::ConnectError(Box::new(std::io::Error::other("refused")));
        assert_eq!(of(Status::from_error(Box::new(refused))), (Loss::Connection, false));
    }

    #[test]
    fn who_may_try_later_is_told_so_whatever_other_workers_said() {
        let busy = || Setback::of(&Status::resource_exhausted("x"));
        let lost = || Setback::of(&Status::unavailable("x"));
        let too_large = || Setback::of(&Status::failed_precondition("x"));
        assert!(matches!(busy().or_worse(lost()).or_worse(too_large()), Setback::Busy { .. }));
        assert!(matches!(too_large().or_worse(lost()).or_worse(busy()), Setback::Busy { .. }));
        assert!(matches!(too_large().or_worse(lost()), Setback::Lost { .. }));
        assert!(matches!(lost().or_worse(too_large()), Setback::Lost { .. }));
        assert!(matches!(Setback::Nobody.or_worse(too_large()), Setback::TooLarge(_)));
    }
}
