//! A worker over real loopback gRPC, with the demo model.

mod engine_panic;
mod faulty;
mod generation;
mod info;
mod limits;
mod refusals;
mod server;
mod shutdown;
