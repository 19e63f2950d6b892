//! One stage: a part of the network on a device and a thread of its own.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use windlass_kernels::Backend;

use super::parcel::{Entering, Parcel};
use crate::network::{Capacity, Network, Workspace};
use crate::runner::Part;

/// What a stage is told. It obeys in the order in which it is told, so that what one launch leaves is there for the next.
pub(super) enum Message {
    /// Make memory for this much.
    Allocate(Capacity),
    /// Do this stage's share of a launch.
    Launch(Box<Parcel>),
    /// Take over the latents that a core launch left at the end of the ring.
    Latents(Box<Parcel>),
    /// End.
    Stop,
}

/// What stages answer.
pub(super) enum Answer {
    /// There is memory.
    Allocated,
    /// A launch is done.
    Done(Box<Parcel>),
    /// The parcel is not needed any more.
    Spare(Box<Parcel>),
    /// The stage is lost, and with it the ring.
    Lost { stage: usize, panic: String },
}

/// One stage of a ring.
pub(super) struct Stage<B: Backend> {
    pub(super) number: usize,
    pub(super) network: Network<B>,
    pub(super) workspace: Workspace<B>,
    /// The stage behind this one; none behind the last.
    pub(super) next: Option<SyncSender<Message>>,
    pub(super) answers: SyncSender<Answer>,
    /// Nanoseconds that it computed.
    pub(super) busy_ns: Arc<AtomicU64>,
}

impl<B: Backend> Stage<B> {
    /// Obeys until told to stop. A panic is answered, since whoever waits for a launch would wait forever.
    pub(super) fn run(mut self, inbox: &Receiver<Message>) {
        let (stage, answers) = (self.number, self.answers.clone());
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.obey(inbox))) {
            // Where nobody listens any more, nobody waits.
            let _ = answers.send(Answer::Lost { stage, panic: message_of(&*panic) });
        }
    }

    fn obey(&mut self, inbox: &Receiver<Message>) {
        while let Ok(message) = inbox.recv() {
            match message {
                Message::Allocate(capacity) => {
                    self.workspace = self.network.workspace(Capacity::NOTHING);
                    self.workspace = self.network.workspace(capacity);
                    self.answer(Answer::Allocated);
                }
                Message::Launch(parcel) => self.launch(parcel),
                Message::Latents(parcel) => {
                    self.network.set_latents(&mut self.workspace, &parcel.x, parcel.rows.latents());
                    self.answer(Answer::Spare(parcel));
                }
                Message::Stop => return,
            }
        }
    }

    fn launch(&mut self, mut parcel: Box<Parcel>) {
        let start = Instant::now();
        let mut prelude = Duration::ZERO;
        match parcel.part {
            Part::Core => {
                prelude = self.enter(&parcel.entering);
                let Parcel { rows, x, changes, .. } = &mut *parcel;
                self.network.core_part(&mut self.workspace, rows.launch(), x, changes);
            }
            Part::Coda => {
                let Parcel { rows, wanted_logits, wanted_tokens, logits, most_likely, .. } = &mut *parcel;
                self.network.coda(&mut self.workspace, rows.launch(), wanted_logits, logits);
                self.network.most_likely(&mut self.workspace, wanted_tokens, most_likely);
            }
        }
        let took = start.elapsed();
        self.busy_ns.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        parcel.busy.prelude += prelude;
        parcel.busy.launch += took.saturating_sub(prelude);
        match &self.next {
            // A stage that is lost has said so itself.
            Some(next) if parcel.part == Part::Core => drop(next.send(Message::Launch(parcel))),
            _ => self.answer(Answer::Done(parcel)),
        }
    }

    /// The prelude for rows that enter, at the first stage; at the last they need their latents alone, with which the core's
    /// end compares the new ones. Returns how long the prelude took.
    fn enter(&mut self, Entering { rows, tokens, initial }: &Entering) -> Duration {
        let start = Instant::now();
        if !rows.is_empty() && self.network.is_first() {
            self.network.prelude(&mut self.workspace, tokens, initial, rows.launch());
            return start.elapsed();
        }
        if !rows.is_empty() && self.network.is_last() {
            self.network.set_latents(&mut self.workspace, initial, rows.latents());
        }
        Duration::ZERO
    }

    fn answer(&self, answer: Answer) {
        // Where nobody listens any more, nobody waits.
        let _ = self.answers.send(answer);
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
