//! What a broken connection means, in words for users.

use std::error::Error;

/// What the libraries say where one side speaks TLS and the other does not.
const NO_PLAIN_TEXT: [&str; 3] =
    ["operation was canceled", "frame with invalid size", "unspecific protocol error detected"];
const NO_TLS: [&str; 2] = ["InvalidContentType", "received corrupt message"];

/// The innermost error, which says what happened; the outer ones say "transport error".
pub(crate) fn what_broke(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    reworded(&cause.to_string())
}

fn reworded(cause: &str) -> String {
    let says = |parts: &[&str]| parts.iter().any(|part| cause.contains(part));
    if says(&NO_TLS) {
        return "the server does not speak TLS there: use http:// or no scheme, and set no CA (--ca)"
            .to_owned();
    }
    if says(&NO_PLAIN_TEXT) {
        return "the server broke the connection off without an answer: if it speaks TLS, use https:// and set the CA of its \
                certificate (--ca)"
            .to_owned();
    }
    cause.to_owned()
}
