//! Typed client of the public gRPC API: text in, text and depths out; and the workers, for operators.
//!
//! It does not retry: an error says what the caller may do about it.

mod api_key;
mod client;
mod config;
mod error;
mod event;
mod jobs;
mod options;
mod transport;
mod workers;

pub use api_key::ApiKey;
pub use client::Client;
pub use config::ClientConfig;
pub use error::ClientError;
pub use event::{Delta, Event, Finish, FinishReason, Generated, Token, TokenLogprob, Usage};
pub use options::{
    Adaptive, Criterion, Depth, GenerateOptions, GenerateRequest, Kv, Message, Prompt, Sampling,
};
/// What one model can do.
pub use windlass_proto::v1::ModelInfo;
/// Jobs: what is submitted, and what becomes of it.
pub use windlass_proto::v1::{ItemResult, Job, JobItem, JobSpec, JobState};
pub use windlass_transport::{ClientTls, ClientTlsFiles, PemFile, TlsError, install_crypto_provider};
pub use workers::{Worker, WorkerState};
