//! One stage: a part of the network on a device and a thread of its own, or on several ranks that share its layers, here or in
//! other processes.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use windlass_kernels::Backend;

use super::parcel::Parcel;
use crate::network::Capacity;
use crate::ranks::{Device, Order, Others, Outcome, Step};
use crate::runner::Part;

/// What a stage is told. It obeys in the order in which it is told, so that what one launch leaves is there for the next.
pub(super) enum Message {
    /// Make memory for this much.
    Allocate(Capacity),
    /// Do this stage's share of a launch.
    Launch(Box<Parcel>),
    /// Take over the latents that a core launch left at the end of the ring.
    Latents(Box<Parcel>),
    /// End; whether that is because something failed.
    Stop { is_failure: bool },
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

/// The ranks of a stage, wherever they are. Operations panic if one is lost.
pub trait StageRanks: Send {
    /// Has all of them do as `order` says, after those before.
    fn obey(&mut self, order: &Order);
    /// Whether the first can draw tokens from the logits of all, if this is the last stage.
    fn draws(&self) -> bool {
        false
    }
    /// Replaces `outcome` by what they made of `order`, the last one, a core or a coda.
    fn outcome(&mut self, order: &Order, outcome: &mut Outcome);
}

/// Ranks of which the first computes on the stage's own thread.
pub struct LocalRanks<B: Backend> {
    /// Before the others, so that its end frees those that wait for it before it waits for theirs.
    first: Device<B>,
    others: Others,
}

impl<B: Backend> LocalRanks<B> {
    /// The first rank's device, and the way to the others.
    pub fn new(first: Device<B>, others: Others) -> Self {
        Self { first, others }
    }
}

impl<B: Backend> StageRanks for LocalRanks<B> {
    fn obey(&mut self, order: &Order) {
        self.others.tell(|copy| copy.copy(order));
        self.first.obey(order);
        if let Step::Allocate(capacity) = order.step {
            self.others.reserve(capacity.rows, self.first.network().config().hidden);
        }
    }

    fn draws(&self) -> bool {
        self.first.network().can_draw()
    }

    fn outcome(&mut self, order: &Order, outcome: &mut Outcome) {
        let Self { first, others } = self;
        if order.step == Step::Coda && order.wants_head() {
            let vocabulary = first.network().config().vocabulary;
            others.join(&mut first.outcome().head, vocabulary);
        }
        std::mem::swap(outcome, first.outcome());
    }
}

/// One stage of a ring.
pub(super) struct Stage {
    pub(super) number: usize,
    pub(super) ranks: Box<dyn StageRanks>,
    /// The stage behind this one; none behind the last.
    pub(super) next: Option<SyncSender<Message>>,
    pub(super) answers: SyncSender<Answer>,
    /// Nanoseconds that it computed.
    pub(super) busy_ns: Arc<AtomicU64>,
}

impl Stage {
    /// Obeys until told to stop, and gives its ranks back. A panic is answered, since whoever waits for a launch would wait forever.
    pub(super) fn run(mut self, inbox: &Receiver<Message>) -> Option<Box<dyn StageRanks>> {
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.hear(inbox))) else {
            return Some(self.ranks);
        };
        self.answer(Answer::Lost { stage: self.number, panic: message_of(&*panic) });
        // They go down with the panic, so that ranks elsewhere see a failure and not an end in order.
        let go_down = move || {
            let _ranks = self.ranks;
            resume_unwind(panic)
        };
        let _: Result<(), _> = catch_unwind(AssertUnwindSafe(go_down));
        None
    }

    fn hear(&mut self, inbox: &Receiver<Message>) {
        while let Ok(message) = inbox.recv() {
            match message {
                Message::Allocate(capacity) => {
                    self.ranks.obey(&Order { step: Step::Allocate(capacity), ..Order::default() });
                    self.answer(Answer::Allocated);
                }
                Message::Launch(parcel) => self.launch(parcel),
                Message::Latents(mut parcel) => {
                    parcel.order.step = Step::Latents;
                    self.ranks.obey(&parcel.order);
                    self.answer(Answer::Spare(parcel));
                }
                Message::Stop { is_failure } => {
                    assert!(!is_failure, "the engine failed");
                    return;
                }
            }
        }
    }

    fn launch(&mut self, mut parcel: Box<Parcel>) {
        let start = Instant::now();
        let mut prelude = Duration::ZERO;
        if !parcel.entering.rows.is_empty() {
            self.ranks.obey(&parcel.entering);
            if self.number == 0 {
                prelude = start.elapsed();
            }
        }
        let Parcel { order, outcome, .. } = &mut *parcel;
        self.ranks.obey(order);
        self.ranks.outcome(order, outcome);
        if order.step == Step::Core {
            std::mem::swap(&mut order.values, &mut outcome.values);
        }
        let took = start.elapsed();
        self.busy_ns.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        parcel.busy.prelude += prelude;
        parcel.busy.launch += took.saturating_sub(prelude);
        match &self.next {
            // A stage that is lost has said so itself.
            Some(next) if parcel.part() == Part::Core => drop(next.send(Message::Launch(parcel))),
            _ => self.answer(Answer::Done(parcel)),
        }
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
