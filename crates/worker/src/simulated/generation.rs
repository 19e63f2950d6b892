//! One request of a simulated engine.

use std::ops::ControlFlow;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use windlass_engine::{Event, FinishReason, Request, RequestId, TokenOutput};
use windlass_model::{Depth, ModelConfig};

use super::draws::Draws;
use super::seats::Seat;

/// A request and how far it has come.
#[derive(Debug)]
pub(super) struct Generation {
    id: RequestId,
    request: Request,
    draws: Draws,
    /// The model's own.
    stop_tokens: Vec<u32>,
    generated: usize,
    core_iterations: u64,
}

impl Generation {
    /// One that goes on behind the request's emitted tokens.
    pub(super) fn new(id: RequestId, request: Request, model: &ModelConfig, fingerprint: &str) -> Self {
        let draws = Draws::new(&request, fingerprint, model.vocabulary);
        let core_iterations = request.emitted.iter().map(|emitted| u64::from(emitted.depth)).sum();
        let stop_tokens = model.stop_tokens.clone();
        Self { id, draws, stop_tokens, generated: request.emitted.len(), core_iterations, request }
    }

    /// Generates until the answer is whole, its time is over, nobody listens any more, or the engine is told to stop.
    pub(super) async fn run(
        mut self,
        mut seat: Seat,
        admitted: oneshot::Receiver<()>,
        events: mpsc::Sender<Event>,
    ) {
        let deadline = self.request.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let shared = seat.shared();
        let is_late = tokio::select! {
            // Whoever has gone gets nothing more, and takes up nobody's time.
            biased;
            () = events.closed() => false,
            () = shared.stopped() => false,
            () = passed(deadline) => true,
            () = self.generate(&mut seat, admitted, &events) => false,
        };
        // Whoever reads the end finds the seat free.
        drop(seat);
        if is_late {
            self.finish(FinishReason::Timeout, &events);
        }
    }

    async fn generate(
        &mut self,
        seat: &mut Seat,
        admitted: oneshot::Receiver<()>,
        events: &mpsc::Sender<Event>,
    ) {
        if admitted.await.is_err() {
            return;
        }
        // Each token is due by what those before it took, so that a timer that is late delays none but its own.
        let mut due = Instant::now();
        let max = self.request.depth.max();
        // Prompt and emitted tokens move through the depths together.
        let settled = self.request.prompt.len() + self.generated.saturating_sub(1);
        due += seat.fly(settled, max);
        sleep_until(due).await;
        let iterations = settled as u64 * u64::from(max);
        seat.done(settled, iterations, iterations);
        if self.generated == 0 && self.emit(max, events).is_break() {
            return;
        }
        loop {
            let depth = self.draws.depth(&self.request.depth, self.position());
            due += seat.fly(1, depth);
            sleep_until(due).await;
            seat.done(1, depth.into(), max.into());
            if self.emit(depth, events).is_break() {
                return;
            }
        }
    }

    /// Says the next token, which took `depth` iterations, and the end if it is the last.
    fn emit(&mut self, depth: Depth, events: &mpsc::Sender<Event>) -> ControlFlow<()> {
        let token = self.draws.token(self.position());
        let is_stop = self.request.stops_at(token, &self.stop_tokens);
        self.generated += 1;
        self.core_iterations += u64::from(depth);
        let output = TokenOutput { token, depth, is_stop, ..TokenOutput::default() };
        // There is room for every token and an end; a reader that has gone is noticed elsewhere.
        let _ = events.try_send(Event::Token(self.id, output));
        let reason = match is_stop {
            true => FinishReason::Stop,
            false if self.generated == self.request.max_tokens => FinishReason::Length,
            false => return ControlFlow::Continue(()),
        };
        self.finish(reason, events);
        ControlFlow::Break(())
    }

    /// Says that nothing follows.
    pub(super) fn finish(&self, reason: FinishReason, events: &mpsc::Sender<Event>) {
        let usage = self.request.usage(self.generated, self.core_iterations);
        let _ = events.try_send(Event::Finished(self.id, reason, usage));
    }

    /// Where the next token stands.
    fn position(&self) -> usize {
        self.request.prompt.len() + self.generated
    }
}

/// Waits for the deadline, if there is one.
async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
