use std::error::Error as StdError;
use std::time::Duration;

use etcd_client::Error;
use tonic::{Code, ConnectError, Status};
use windlass_transport::{TlsFault, causes};

use crate::StoreError;

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
    let reason = match TlsFault::of(error) {
        None | Some(TlsFault::PlainText) => reason,
        // What one side does not accept will not be accepted later.
        Some(TlsFault::PeerCertificate(reason)) => {
            let reason =
                format!("etcd's certificate is not accepted ({reason}): etcd_ca must be its authority");
            return Fault::Final(StoreError::Refused { reason });
        }
        Some(TlsFault::OwnCertificate(alert)) => {
            let reason = format!(
                "etcd asks for another certificate ({alert}): set etcd_certificate and etcd_key to one that its authority signed"
            );
            return Fault::Final(StoreError::Refused { reason });
        }
    };
    let is_not_sent = causes(error).iter().any(|cause| cause.is::<ConnectError>());
    if is_not_sent { Fault::NotSent(reason) } else { Fault::Away(reason) }
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
