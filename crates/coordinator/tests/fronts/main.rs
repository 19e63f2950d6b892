//! Both fronts, over real sockets, in front of scripted workers.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod choices;
mod cluster;
mod grpc;
mod hedging;
mod http;
mod jobs;
mod long_texts;
mod migration;
mod queue;
mod security;
mod support;
mod workers;
