//! Both fronts, over real sockets, in front of scripted workers.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod choices;
mod grpc;
mod http;
mod jobs;
mod support;
mod workers;
