//! Servers that accept and clients that connect, over loopback.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod files;
mod handshakes;
mod limits;
mod reload;
mod support;
