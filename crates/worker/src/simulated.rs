//! An engine that computes nothing: for clusters of a thousand workers on one machine.
//!
//! It takes the same requests as a real one, within the same limits, and its answers are as reproducible: token ids and depths are
//! a function of prompt, seed, position and fingerprint, so that an answer goes on at another simulated worker as it would have
//! here. What they take of time is a [`SimulatedCost`]. Each request is a task that sleeps by tokio's clock; there is no thread, and an
//! idle engine does nothing at all.

mod draws;
mod generation;
mod seats;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use windlass_engine::{
    EngineConfig, Event, InvalidRequest, Load, MemoryLimits, Request, RequestLimits, SubmitError,
};
use windlass_model::ModelConfig;

use crate::engine_handle::EngineError;
use generation::Generation;
use seats::{Seat, Seats};

/// How long a core iteration takes: `tick`, and `row` for every position in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimulatedCost {
    /// What the weights cost, whatever the rows.
    pub tick: Duration,
    /// What each row adds.
    pub row: Duration,
}

impl Default for SimulatedCost {
    fn default() -> Self {
        Self { tick: Duration::from_millis(1), row: Duration::from_micros(10) }
    }
}

impl SimulatedCost {
    /// How long this many iterations take among `rows` rows.
    fn of(self, iterations: u32, rows: usize) -> Duration {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        self.tick.saturating_add(self.row.saturating_mul(rows)).saturating_mul(iterations)
    }
}

/// The way to an engine that computes nothing. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SimulatedEngine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    model: ModelConfig,
    limits: EngineConfig,
    cost: SimulatedCost,
    /// Of the model simulated; answers depend on it.
    fingerprint: String,
    seats: Seats,
    has_stopped: watch::Sender<bool>,
}

impl SimulatedEngine {
    pub(crate) fn new(
        model: ModelConfig,
        limits: EngineConfig,
        cost: SimulatedCost,
        fingerprint: String,
        blocks: usize,
    ) -> Self {
        let seats = Seats::new(limits.max_lanes, limits.max_waiting, blocks);
        let has_stopped = watch::Sender::new(false);
        Self { shared: Arc::new(Shared { model, limits, cost, fingerprint, seats, has_stopped }) }
    }

    pub(crate) fn submit(&self, request: Request) -> Result<mpsc::Receiver<Event>, EngineError> {
        if self.has_stopped() {
            return Err(EngineError::Stopped);
        }
        let Shared { model, limits, fingerprint, seats, .. } = &*self.shared;
        self.validate(&request)?;
        let (events, receiver) = mpsc::channel(request.max_tokens + 1);
        if let Some(reason) = request.end_of_emitted(&model.stop_tokens) {
            Generation::new(seats.next_id(), request, model, fingerprint).finish(reason, &events);
            return Ok(receiver);
        }
        let memory = MemoryLimits { blocks: seats.blocks_total(), max_prompt: limits.prefill_positions };
        request.validate_memory(memory).map_err(SubmitError::TooLarge)?;
        let (seat, admitted) = Seat::take(&self.shared, &request)?;
        let generation = Generation::new(seat.id(), request, model, fingerprint);
        tokio::spawn(generation.run(seat, admitted, events));
        Ok(receiver)
    }

    pub(crate) fn load(&self) -> Result<Load, EngineError> {
        if self.has_stopped() { Err(EngineError::Stopped) } else { Ok(self.shared.seats.load()) }
    }

    /// Ends all requests without an answer.
    pub(crate) fn stop(&self) {
        self.shared.has_stopped.send_replace(true);
    }

    pub(crate) fn has_stopped(&self) -> bool {
        *self.shared.has_stopped.borrow()
    }

    pub(crate) async fn stopped(&self) {
        self.shared.stopped().await;
    }

    fn validate(&self, request: &Request) -> Result<(), SubmitError> {
        let Shared { model, limits, .. } = &*self.shared;
        request.validate(RequestLimits { model, max_depth: limits.max_depth })?;
        if request.logprobs.is_some() {
            let reason = "a simulated worker has no probabilities: leave it out";
            return Err(InvalidRequest::new("logprobs", reason).into());
        }
        Ok(())
    }
}

impl Shared {
    async fn stopped(&self) {
        let mut has_stopped = self.has_stopped.subscribe();
        let _ = has_stopped.wait_for(|has_stopped| *has_stopped).await;
    }
}
