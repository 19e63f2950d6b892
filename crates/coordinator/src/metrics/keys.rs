//! What each API key uses. Keys are named by the operator, so there are no more labels than keys.

use metrics::{counter, describe_counter};

const REQUESTS: &str = "windlass_key_requests_total";
const TOKENS: &str = "windlass_key_tokens_total";
const LIMITED: &str = "windlass_key_limited_total";

pub(super) fn describe() {
    describe_counter!(REQUESTS, "Requests taken, by API key");
    describe_counter!(TOKENS, "Prompt and generated tokens, by API key");
    describe_counter!(LIMITED, "Requests over a limit of their API key: concurrency, requests or tokens");
}

/// Makes a key's counters visible before its first request.
pub(crate) fn known_key(key: &str) {
    counter!(REQUESTS, "key" => key.to_owned()).increment(0);
    counter!(TOKENS, "key" => key.to_owned()).increment(0);
}

pub(crate) fn key_request(key: &str) {
    counter!(REQUESTS, "key" => key.to_owned()).increment(1);
}

pub(crate) fn key_tokens(key: &str, tokens: u64) {
    counter!(TOKENS, "key" => key.to_owned()).increment(tokens);
}

pub(crate) fn key_limited(key: &str, limit: &'static str) {
    counter!(LIMITED, "key" => key.to_owned(), "limit" => limit).increment(1);
}
