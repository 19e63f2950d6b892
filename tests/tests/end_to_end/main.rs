//! Coordinator and workers as processes, asked over HTTP and gRPC.

mod bad_input;
mod cancel;
mod cluster_jobs;
mod commands;
mod etcd_leader;
mod faults;
mod identity;
mod jobs;
mod manifests;
mod membership;
mod openai_client;
mod ranks;
mod security;
mod slow_reader;
mod stream;
mod worker_loss;
