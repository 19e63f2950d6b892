//! Why a worker did not answer, in words for operators.

use std::error::Error;
use std::io;

use tonic::{Code, ConnectError, Status};
use windlass_transport::TlsFault;

/// What tonic and HTTP/2 say of an answer that is no gRPC.
const NO_GRPC: [&str; 4] = [
    "grpc-status header missing",
    "while receiving response with status",
    "frame with invalid size",
    "unspecific protocol error detected",
];

/// Who does not answer may only have begun.
const LATE: &str = "it does not answer in time: it loads its model, waits for its ranks, or hangs";

/// What the status says, or what broke the connection; never empty.
pub(crate) fn reason(status: &Status) -> String {
    let causes = causes(status);
    let texts: Vec<_> = causes.iter().map(ToString::to_string).chain([status.message().to_owned()]).collect();
    let says = |parts: &[&str]| texts.iter().any(|text| parts.iter().any(|part| text.contains(part)));
    if status.code() == Code::Unimplemented || says(&NO_GRPC) {
        return "it does not speak windlass.v1.Worker, or not without TLS".into();
    }
    match status.source().and_then(TlsFault::of) {
        Some(TlsFault::PlainText) => return "it does not speak TLS: worker_ca is for workers that do".into(),
        Some(TlsFault::PeerCertificate(reason)) => {
            return format!(
                "its certificate is not accepted ({reason}): worker_ca must be its authority, and worker_tls_name a name it carries if its address is none"
            );
        }
        Some(TlsFault::OwnCertificate(alert)) => {
            return format!(
                "it asks for another certificate ({alert}): worker_certificate must be of its tls_client_ca"
            );
        }
        None => {}
    }
    if causes.is_empty() {
        // What the other side says of itself.
        let message = status.message();
        return if message.is_empty() { status.code().description() } else { message }.to_owned();
    }
    if says(&["timed out", "deadline has elapsed"]) {
        return LATE.into();
    }
    // The libraries' words for it, from the outside in, are "transport error", "h2 protocol error" and the like.
    let of_system = causes.iter().rfind(|cause| cause.is::<io::Error>());
    of_system.map_or_else(|| "the connection broke".to_owned(), ToString::to_string)
}

/// Whether the connection broke: then the status was made on this side, from an error of the transport.
pub(crate) fn is_broken(status: &Status) -> bool {
    status.source().is_some()
}

/// Whether there was no connection, so that nothing can have been sent.
pub(crate) fn was_never_sent(status: &Status) -> bool {
    causes(status).iter().any(|cause| cause.is::<ConnectError>())
}

/// The causes of a status that was made on this side, the innermost last.
fn causes(status: &Status) -> Vec<&(dyn Error + 'static)> {
    status.source().map(windlass_transport::causes).unwrap_or_default()
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
    fn a_broken_connection_is_told_without_the_libraries_words() {
        let broken = Status::from_error(Box::new(h2_error()));
        assert_eq!(reason(&broken), "the connection broke");
        let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "connection timed out");
        assert_eq!(reason(&Status::from_error(Box::new(late))), LATE);
    }

    /// An error of some library with no word for operators.
    fn h2_error() -> impl Error + Send + Sync {
        #[derive(Debug, thiserror::Error)]
        #[error("h2 protocol error: error reading a body from connection")]
        struct Transport;
        Transport
    }

    #[test]
    fn a_peer_without_the_service_is_named_as_such() {
        assert!(reason(&Status::unimplemented("")).starts_with("it does not speak windlass.v1.Worker"));
    }
}
