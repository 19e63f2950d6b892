//! What a broken connection means, in words for users.

use std::error::Error;
use std::io::{self, ErrorKind};

use windlass_transport::{TlsFault, causes};

/// The innermost error, which says what happened; the outer ones say "transport error". Where a connection was made and then broke
/// off, it may be that one side speaks TLS and the other does not, however far either had come: a remedy for that is added.
/// `in_tls` tells whether it broke in TLS rather than in plain text.
pub(crate) fn what_broke(error: &(dyn Error + 'static), in_tls: bool) -> String {
    match TlsFault::of(error) {
        Some(TlsFault::PlainText) => {
            return "the server does not speak TLS there: use http:// or no scheme, and set no CA (--ca)"
                .into();
        }
        Some(TlsFault::PeerCertificate(reason)) => {
            return format!(
                "the server's certificate is not accepted ({reason}): connect by a name that it carries, with its authority as CA (--ca)"
            );
        }
        Some(TlsFault::OwnCertificate(alert)) => {
            return format!(
                "the server asks for another certificate ({alert}): set one of an authority that it trusts (--certificate, --key)"
            );
        }
        None => {}
    }
    let cause = causes(error).last().map_or_else(String::new, ToString::to_string);
    match (broke_off(error), in_tls) {
        (false, _) => cause,
        (true, false) => format!(
            "the connection broke off ({cause}): name its gRPC address, not that of HTTP; if it was in plain text and the server speaks TLS, use https:// and set the CA of its certificate (--ca)"
        ),
        (true, true) => format!(
            "the connection broke off ({cause}): if the server does not speak TLS, use http:// or no scheme, and set no CA (--ca)"
        ),
    }
}

/// Whether the other side was reached and then broke the connection off. Errors of HTTP/2 hide the system's: they come after reaching it.
fn broke_off(error: &(dyn Error + 'static)) -> bool {
    let causes = causes(error).into_iter();
    let system = causes.filter_map(|error| error.downcast_ref::<io::Error>().map(io::Error::kind)).last();
    let broken = [
        ErrorKind::BrokenPipe,
        ErrorKind::ConnectionAborted,
        ErrorKind::ConnectionReset,
        ErrorKind::NotConnected,
        ErrorKind::UnexpectedEof,
    ];
    system.is_none_or(|kind| broken.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kind: ErrorKind, in_tls: bool) -> String {
        what_broke(&io::Error::from(kind), in_tls)
    }

    #[test]
    fn a_connection_broken_off_may_be_a_matter_of_tls() {
        for kind in [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::UnexpectedEof] {
            assert!(
                said(kind, false).contains("if it was in plain text and the server speaks TLS, use https://"),
                "{kind}"
            );
            assert!(said(kind, true).contains("if the server does not speak TLS, use http://"), "{kind}");
        }
        let protocol = what_broke(&std::fmt::Error, false);
        assert!(protocol.contains("the server speaks TLS"), "{protocol}");
    }

    #[test]
    fn a_server_that_is_not_reached_is_not() {
        for kind in [ErrorKind::ConnectionRefused, ErrorKind::TimedOut, ErrorKind::HostUnreachable] {
            assert_eq!(said(kind, false), io::Error::from(kind).to_string());
            assert_eq!(said(kind, true), said(kind, false));
        }
    }
}
