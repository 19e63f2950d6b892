use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use etcd_client::Error;
use tokio_rustls::rustls;
use tonic::{Code, ConnectError, Status};

use crate::StoreError;

/// What TLS says of a certificate that is not accepted, or is missing.
const CERTIFICATE_ALERTS: [&str; 8] = [
    "BadCertificate",
    "UnsupportedCertificate",
    "CertificateRequired",
    "CertificateUnknown",
    "CertificateExpired",
    "CertificateRevoked",
    "UnknownCA",
    "AccessDenied",
];

/// Why a call failed, by what helps.
#[derive(Debug)]
pub(super) enum Fault {
    /// No answer in time.
    Unanswered,
    /// The call got to no member.
    NotSent(String),
    /// Whatever became of the call, it can be tried again later.
    Away(String),
    /// etcd does not know any more who asks, and did nothing.
    Stranger(String),
    /// It would fail again.
    Final(StoreError),
}

impl Fault {
    pub(super) fn into_error(self, timeout: Duration) -> StoreError {
        match self {
            Self::Unanswered => {
                StoreError::Unavailable { reason: format!("etcd did not answer within {timeout:?}") }
            }
            Self::NotSent(reason) | Self::Away(reason) => StoreError::Unavailable { reason },
            Self::Stranger(reason) => StoreError::Refused { reason },
            Self::Final(error) => error,
        }
    }
}

pub(super) fn fault(error: &Error) -> Fault {
    if super::is_lease_lost(error) {
        return Fault::Final(StoreError::LeaseLost);
    }
    match error {
        Error::GRpcStatus(status) => of_status(status),
        Error::TransportError(error) => of_transport(error, chain(error)),
        Error::IoError(_)
        | Error::WatchError(_)
        | Error::LeaseKeepAliveError(_)
        | Error::EndpointError(_) => Fault::Away(error.to_string()),
        _ => Fault::Final(StoreError::Refused { reason: error.to_string() }),
    }
}

fn of_status(status: &Status) -> Fault {
    let reason = status.message().to_owned();
    if let Some(source) = status.source() {
        // Not etcd's words, but those of the connection.
        return of_transport(source, chain(source));
    }
    match status.code() {
        Code::Unauthenticated => Fault::Stranger(reason),
        // Rights were changed since this client introduced itself.
        Code::InvalidArgument if reason.contains("revision in header is old") => Fault::Stranger(reason),
        Code::ResourceExhausted if reason.contains("space exceeded") => {
            Fault::Final(StoreError::Refused { reason })
        }
        Code::PermissionDenied
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::NotFound
        | Code::Unimplemented => Fault::Final(StoreError::Refused { reason }),
        _ => Fault::Away(reason),
    }
}

fn of_transport(error: &(dyn StdError + 'static), reason: String) -> Fault {
    let causes = causes(error);
    // A certificate that one side does not accept will not be accepted later.
    if is_distrusted(&reason) || causes.iter().any(|cause| is_distrust(*cause)) {
        return Fault::Final(StoreError::Refused { reason });
    }
    let is_not_sent = causes.iter().any(|cause| cause.is::<ConnectError>());
    if is_not_sent { Fault::NotSent(reason) } else { Fault::Away(reason) }
}

/// Whether this side does not accept etcd's certificate.
fn is_distrust(cause: &(dyn StdError + 'static)) -> bool {
    matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))
}

/// Whether etcd does not accept this side's certificate, or misses one. Known by its words: where the handshake is over
/// when they come, HTTP/2 hides what they were.
fn is_distrusted(reason: &str) -> bool {
    let alert = reason.split("received fatal alert: ").nth(1);
    alert.is_some_and(|alert| CERTIFICATE_ALERTS.iter().any(|known| alert.starts_with(known)))
}

/// The error and what it came from.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    let mut causes = vec![error];
    let mut last = error;
    loop {
        let next = match last.downcast_ref::<io::Error>() {
            // Its own `source` would skip what it wraps.
            Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => last.source(),
        };
        let Some(next) = next else { return causes };
        causes.push(next);
        last = next;
    }
}

/// The error with its causes, each unless the one before said it already.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let mut last = String::new();
    for cause in causes(error).into_iter().map(|cause| cause.to_string()) {
        if !last.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
            last = cause;
        }
    }
    text
}
