//! A worker over real loopback gRPC, with the demo model.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod drain;
mod engine_panic;
mod generation;
mod heartbeats;
mod info;
mod limits;
mod refusals;
mod resume;
mod server;
mod shutdown;
mod simulated;
