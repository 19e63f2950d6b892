//! Continuous batching over depth.
//!
//! [`Engine::tick`] advances every row in flight by one core iteration: plan, run, apply. The engine owns lanes, rows,
//! K/V blocks, exit criteria and sampling; it knows no async, no network, no clock and no text. What a request gets is
//! a function of the request alone: never of what it is batched with, of chunk sizes or of arrival.

mod config;
mod engine;
mod event;
mod exit;
mod lane;
mod load;
mod pool;
mod request;
mod sampler;
mod scheduler;

pub use config::{EngineConfig, EngineConfigError, Schedule, block_bytes};
pub use engine::{Engine, SubmitError};
pub use event::{Event, FinishReason, TokenOutput, Usage};
pub use load::{CORE_ROWS_BOUNDS, Load};
pub use request::{InvalidRequest, Request, RequestId, RequestLimits, Sampling};
