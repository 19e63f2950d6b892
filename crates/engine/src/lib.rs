//! Continuous batching over depth.
//!
//! [`Engine::tick`] advances every row in flight by one core iteration: plan, run, apply. Where it takes several launches to
//! keep the model busy, lanes are dealt to as many batches, and a tick does so with the rows of the next. The engine owns lanes, rows,
//! K/V blocks, exit criteria and sampling; it knows no async, no network, no text, and of time only what a [`Clock`] says. What a request gets is
//! a function of the request alone: never of what it is batched with, of chunk sizes or of arrival.

mod batch;
mod blocks;
mod clock;
mod coalesce;
mod config;
mod cost;
mod drafting;
mod engine;
mod event;
mod exit;
mod lane;
mod launch;
mod launch_rows;
mod load;
mod logprobs;
mod memory;
mod pool;
mod prefix;
mod request;
mod row;
mod sampler;
mod scheduler;
mod sequence;
mod shared;
mod waiting;

pub use clock::{Clock, MonotonicClock};
pub use config::{
    Coalesce, Draft, EngineConfig, EngineConfigError, ParseCoalesceError, ParseDraftError, Schedule,
    block_bytes,
};
pub use engine::{Engine, SubmitError};
pub use event::{Event, FinishReason, TokenOutput, Usage};
pub use launch::{LaunchRecord, Phase};
pub use load::{CORE_ROWS_BOUNDS, Load};
pub use request::{EmittedToken, InvalidRequest, MemoryLimits, Request, RequestId, RequestLimits, Sampling};
