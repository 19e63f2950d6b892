//! Why a worker did not answer, in words for operators.

use std::error::Error;

use tonic::{Code, Status};

/// What tonic and HTTP/2 say of an answer that is no gRPC.
const NO_GRPC: [&str; 4] = [
    "grpc-status header missing",
    "while receiving response with status",
    "frame with invalid size",
    "unspecific protocol error detected",
];

/// The status' message and all its causes; never empty.
pub(crate) fn reason(status: &Status) -> String {
    let mut reason = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        cause = error.source();
    }
    if status.code() == Code::Unimplemented || NO_GRPC.iter().any(|text| reason.contains(text)) {
        return "it does not speak windlass.v1.Worker".into();
    }
    if reason.is_empty() { status.code().description().to_owned() } else { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_never_empty() {
        assert_eq!(reason(&Status::unavailable("")), Code::Unavailable.description());
        assert_eq!(reason(&Status::unavailable("draining")), "draining");
    }

    #[test]
    fn a_cause_is_told_once() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let status = Status::from_error(Box::new(std::io::Error::other(refused)));
        assert_eq!(reason(&status).matches("connection refused").count(), 1, "{status:?}");
    }

    #[test]
    fn a_peer_without_the_service_is_named_as_such() {
        assert_eq!(reason(&Status::unimplemented("")), "it does not speak windlass.v1.Worker");
    }
}
