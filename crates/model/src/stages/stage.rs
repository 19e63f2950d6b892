//! One stage: a part of the network on a device and a thread of its own, or on several ranks that share its layers, here or in
//! other processes.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use windlass_kernels::Backend;

use super::parcel::Parcel;
use crate::network::Capacity;
use crate::ranks::{Device, Order, Others, Outcome, Step, UNREAD};
use crate::runner::{Busy, Part};

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
    /// Whether the outcome of the first order of which it was not asked for comes without waiting; always so where an order is done
    /// when they have obeyed it.
    fn is_done(&mut self) -> bool {
        true
    }
    /// Whether they go on computing what was handed on, so that they should be asked again whether it has failed.
    ///
    /// # Panics
    /// If it has.
    fn is_computing(&mut self) -> bool {
        false
    }
    /// Replaces `outcome` by what they made of `order`, a core or a coda: the first of which it was not asked for, of at most [`UNREAD`].
    /// Where devices hand rows on by themselves it is there when the core begins.
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

    fn is_done(&mut self) -> bool {
        self.first.is_done()
    }

    fn is_computing(&mut self) -> bool {
        self.first.is_computing()
    }

    fn outcome(&mut self, order: &Order, outcome: &mut Outcome) {
        let Self { first, others } = self;
        std::mem::swap(outcome, first.outcome());
        if order.step == Step::Coda && order.wants_head() {
            others.join(&mut outcome.head, first.network().config().vocabulary);
        }
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
    /// Launches that were begun and not handed on.
    pub(super) begun: VecDeque<Begun>,
    /// When the last one was handed on.
    pub(super) last: Instant,
}

/// A launch that a stage has begun.
pub(super) struct Begun {
    parcel: Box<Parcel>,
    start: Instant,
    /// How long its prelude kept this thread.
    prelude: Duration,
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
        while let Some(message) = self.next_message(inbox) {
            match message {
                Message::Allocate(capacity) => {
                    self.ranks.obey(&Order { step: Step::Allocate(capacity), ..Order::default() });
                    self.answer(Answer::Allocated);
                }
                Message::Launch(parcel) => self.begin(parcel),
                Message::Latents(mut parcel) => {
                    parcel.order.step = Step::Latents;
                    self.ranks.obey(&parcel.order);
                    self.answer(Answer::Spare(parcel));
                }
                Message::Stop { is_failure } => {
                    assert!(!is_failure, "the engine failed");
                    while let Some(begun) = self.begun.pop_front() {
                        self.finish(begun);
                    }
                    return;
                }
            }
        }
    }

    /// The next message, if anybody will send one. A launch that is begun is handed on as soon as that can be; until then the next
    /// may be begun behind it, so that the device need not wait for this thread.
    fn next_message(&mut self, inbox: &Receiver<Message>) -> Option<Message> {
        loop {
            let is_next = self.begun.len() == UNREAD || (!self.begun.is_empty() && self.ranks.is_done());
            if let Some(begun) = is_next.then(|| self.begun.pop_front()).flatten() {
                self.finish(begun);
            } else if self.begun.is_empty() && !self.ranks.is_computing() {
                return inbox.recv().ok();
            } else {
                match inbox.try_recv() {
                    Ok(message) => return Some(message),
                    Err(TryRecvError::Empty) => thread::yield_now(),
                    Err(TryRecvError::Disconnected) => return None,
                }
            }
        }
    }

    fn begin(&mut self, parcel: Box<Parcel>) {
        let (start, mut prelude) = (Instant::now(), Duration::ZERO);
        if !parcel.entering.rows.is_empty() {
            self.ranks.obey(&parcel.entering);
            if self.number == 0 {
                prelude = start.elapsed();
            }
        }
        self.ranks.obey(&parcel.order);
        self.begun.push_back(Begun { parcel, start, prelude });
    }

    fn finish(&mut self, Begun { mut parcel, start, prelude }: Begun) {
        let Parcel { order, outcome, .. } = &mut *parcel;
        self.ranks.outcome(order, outcome);
        if order.step == Step::Core {
            std::mem::swap(&mut order.values, &mut outcome.values);
        }
        let now = Instant::now();
        // Where the device has no clock of its own: since this was asked for, and the one before was done.
        let took = now - start.max(self.last);
        let Busy { prelude, launch } =
            outcome.busy.take().unwrap_or(Busy { prelude, launch: took.saturating_sub(prelude) });
        self.last = now;
        self.busy_ns.fetch_add((prelude + launch).as_nanos() as u64, Ordering::Relaxed);
        parcel.busy.prelude += prelude;
        parcel.busy.launch += launch;
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
