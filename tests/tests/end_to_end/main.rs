//! Coordinator and workers as processes, asked over HTTP and gRPC.

mod bad_input;
mod cancel;
mod commands;
mod faults;
mod identity;
mod manifests;
mod openai_client;
mod security;
mod slow_reader;
mod stream;
mod worker_loss;
