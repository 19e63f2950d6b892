//! The stream of one generation.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::sync::mpsc;
use tonic::Status;
use windlass_engine::Event;
use windlass_proto::v1::{GenerateTaskResponse, generate_task_response};

use crate::answer;
use crate::drain::{DrainWatch, Running};
use crate::status;

/// One generation as the protocol streams it. Dropping it aborts the request.
pub(crate) struct Generation {
    events: mpsc::Receiver<Event>,
    /// The sampler's seed, to be reported in the end.
    seed: u64,
    /// Resolves when the generation is to go on elsewhere.
    handed_over: Pin<Box<dyn Future<Output = ()> + Send>>,
    _running: Running,
    is_over: bool,
}

impl Generation {
    pub(crate) fn new(events: mpsc::Receiver<Event>, seed: u64, running: Running, drain: DrainWatch) -> Self {
        Self { events, seed, handed_over: Box::pin(drain.handed_over()), _running: running, is_over: false }
    }
}

impl Stream for Generation {
    type Item = Result<GenerateTaskResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        // First, since events may come without an end; those that are not sent by now come again at the next worker.
        if self.handed_over.as_mut().poll(context).is_ready() {
            self.is_over = true;
            return Poll::Ready(Some(Err(status::handed_over())));
        }
        let event = match ready!(self.events.poll_recv(context)) {
            Some(Event::Token(_, output)) => generate_task_response::Event::Token(answer::token(output)),
            Some(Event::Finished(_, reason, usage)) => {
                self.is_over = true;
                generate_task_response::Event::Finish(answer::finish(reason, usage, self.seed))
            }
            None => {
                self.is_over = true;
                return Poll::Ready(Some(Err(status::cut_off())));
            }
        };
        Poll::Ready(Some(Ok(GenerateTaskResponse { event: Some(event) })))
    }
}
