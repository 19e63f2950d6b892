//! Coordinator and workers as processes, asked over HTTP and gRPC.

mod bad_input;
mod cancel;
mod commands;
mod identity;
mod jobs;
mod openai_client;
mod slow_reader;
mod stream;
mod worker_loss;
