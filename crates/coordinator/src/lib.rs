//! The coordinator: takes requests over HTTP and gRPC, turns text into tokens, chooses a worker, and brings tokens back
//! as text.
//!
//! It never links the engine, the kernels or the model: workers are reached by gRPC only, also the one in the same
//! process.

mod admission;
mod config;
mod coordinator;
mod dispatch;
mod error;
mod generation;
mod grpc;
mod http;
mod items;
mod locks;
mod metrics;
mod random;
mod registry;
mod routing;
mod security;
pub mod text;

pub use config::{CoordinatorConfig, RequestLimits};
pub use coordinator::Coordinator;
pub use error::CoordinatorError;
pub use registry::{Connect, MemberMap, Members, TcpConnect};
pub use security::api_key_entry;
pub use windlass_transport::{ClientTlsFiles, PemFile, ServerTlsFiles, TlsError};
