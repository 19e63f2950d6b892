//! What the engine's thread does: take in commands, tick, hand out events.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use windlass_engine::{Engine, Event, RequestId};
use windlass_model::Runner;

use crate::engine_thread::Command;

/// An engine between its inbox and its streams.
pub(crate) struct EngineLoop<R: Runner> {
    inbox: mpsc::Receiver<Command>,
    engine: Engine<R>,
    /// Where the events of each request that runs or waits go.
    streams: BTreeMap<RequestId, mpsc::Sender<Event>>,
    next_id: u64,
    /// What came of the last tick; kept for its memory.
    events: Vec<Event>,
}

impl<R: Runner> EngineLoop<R> {
    pub(crate) fn new(engine: Engine<R>, inbox: mpsc::Receiver<Command>) -> Self {
        Self { inbox, engine, streams: BTreeMap::new(), next_id: 0, events: Vec::new() }
    }

    /// Runs until told to stop, or until nobody can ask for anything and nothing is left to do.
    pub(crate) fn run(mut self) {
        while self.take_in().is_continue() {
            self.cancel_deserted();
            if !self.engine.is_idle() {
                self.engine.tick(&mut self.events);
                self.hand_out();
            }
        }
    }

    /// Obeys the commands that are there; an idle engine waits for one.
    fn take_in(&mut self) -> ControlFlow<()> {
        if self.engine.is_idle() {
            match self.inbox.blocking_recv() {
                Some(command) => self.obey(command)?,
                None => return ControlFlow::Break(()),
            }
        }
        // No more than lie there now: what comes in meanwhile must not hold up the tick.
        for _ in 0..self.inbox.len() {
            if let Ok(command) = self.inbox.try_recv() {
                self.obey(command)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn obey(&mut self, command: Command) -> ControlFlow<()> {
        // Whoever asked may have gone: then the answer is lost, and a request without a reader is cancelled below.
        match command {
            Command::Submit { request, events, reply } => {
                let id = RequestId(self.next_id);
                let result = self.engine.submit(id, *request);
                if result.is_ok() {
                    self.next_id += 1;
                    self.streams.insert(id, events);
                }
                let _ = reply.send(result);
            }
            Command::Load(reply) => drop(reply.send(self.engine.load())),
            Command::Ping(reply) => drop(reply.send(())),
            Command::Stop => return ControlFlow::Break(()),
            Command::Fail(reason) => panic!("{reason}"),
        }
        ControlFlow::Continue(())
    }

    /// Cancels every request whose reader is gone.
    fn cancel_deserted(&mut self) {
        let Self { engine, streams, .. } = self;
        streams.retain(|id, events| {
            let deserted = events.is_closed();
            if deserted {
                engine.cancel(*id);
            }
            !deserted
        });
    }

    fn hand_out(&mut self) {
        for event in self.events.drain(..) {
            let (id, is_last) = match &event {
                Event::Token(id, _) => (*id, false),
                Event::Finished(id, ..) => (*id, true),
            };
            match self.streams[&id].try_send(event) {
                // A reader that has gone is noticed before the next tick.
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full(_)) => panic!("{id:?} has more events than tokens and an end"),
            }
            if is_last {
                self.streams.remove(&id);
            }
        }
    }
}
