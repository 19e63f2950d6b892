//! One engine behind the `windlass.v1.Worker` gRPC service.
//!
//! The engine knows no async and lives on a thread of its own; everything of tokio is here. This crate checks what
//! comes in (the one validation edge), carries commands in and events out, and reports health and load. It knows no
//! text, no other worker and no policy of routing.

mod answer;
mod config;
mod convert;
mod device_plan;
mod drain;
mod engine_handle;
mod engine_loop;
mod engine_thread;
mod error;
mod generation;
mod group;
mod heartbeats;
mod memory;
mod notice;
mod question;
pub mod registration;
mod seeds;
mod served_model;
mod service;
mod simulated;
mod status;
mod tokenizer;
mod worker;

pub use config::{WorkerBackend, WorkerConfig};
pub use device_plan::{DevicePlan, DeviceShortage};
pub use error::WorkerError;
pub use group::{RankConfig, RankError, serve_rank};
pub use registration::{IdTaken, Registration};
pub use simulated::SimulatedCost;
pub use windlass_transport::{ClientTlsFiles, PemFile, ServerTlsFiles, TlsError};
pub use worker::Worker;
