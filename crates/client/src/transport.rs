//! What a broken connection means, in words for users.

use std::error::Error;

/// What the libraries say, in lower case, where the server ends a connection in plain text, as one that speaks TLS does; which of
/// these depends on how far the client has come by then.
const NO_PLAIN_TEXT: [&str; 6] = [
    "operation was canceled",
    "connection closed",
    "connection reset",
    "broken pipe",
    "frame with invalid size",
    "unspecific protocol error detected",
];
/// What they say where the client speaks TLS and the server does not.
const NO_TLS: [&str; 2] = ["invalidcontenttype", "received corrupt message"];

/// The innermost error, which says what happened; the outer ones say "transport error".
pub(crate) fn what_broke(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    reworded(&cause.to_string())
}

fn reworded(cause: &str) -> String {
    let lower = cause.to_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    if says(&NO_TLS) {
        return "the server does not speak TLS there: use http:// or no scheme, and set no CA (--ca)"
            .to_owned();
    }
    if says(&NO_PLAIN_TEXT) {
        return "the server broke the connection off: if it speaks TLS, use https:// and set the CA of its certificate (--ca)"
            .to_owned();
    }
    cause.to_owned()
}
