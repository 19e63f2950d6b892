//! The way of a launch's rows from a device to that of the same rank in the next stage of a ring.
//!
//! Devices hand them over in parcels, in the order of launches. Within a process a parcel goes from one to the other, and back when its
//! rows were taken over. Between processes each device has parcels of its own, and what is in them is sent.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SendError, SyncSender, sync_channel};

use windlass_kernels::{Backend, Rows};

/// Where rows come from.
pub(crate) enum Source<'a, B: Backend> {
    /// The host, `[rows, hidden]`.
    Host(&'a [f32]),
    /// A device.
    Path(&'a mut Inlet<B>),
}

/// Where rows go to.
pub(crate) enum Target<'a, B: Backend> {
    /// The host, which keeps nothing else there.
    Host(&'a mut Vec<f32>),
    /// A device.
    Path(&'a mut Outlet<B>),
}

/// The beginning of a path.
pub(crate) enum Outlet<B: Backend> {
    /// To a device of this process.
    Here {
        forth: SyncSender<Parcel<B>>,
        back: Receiver<Parcel<B>>,
        /// The one that came back first is used first.
        spare: VecDeque<Parcel<B>>,
        /// For how many rows parcels have room.
        rows: usize,
        /// On their way at most, one of each launch.
        launches: usize,
    },
    /// To one of another process.
    Away(Circle<B>),
}

/// The end of a path.
pub(crate) enum Inlet<B: Backend> {
    /// From a device of this process.
    Here { forth: Receiver<Parcel<B>>, back: SyncSender<Parcel<B>> },
    /// From one of another process.
    Away(Circle<B>),
}

pub(crate) struct Parcel<B: Backend> {
    parcel: B::Parcel,
    /// For how many rows it has room.
    rows: usize,
}

/// Parcels of one device that take turns: some are on their way while the next is filled.
pub(crate) struct Circle<B: Backend> {
    parcels: Vec<B::Parcel>,
    /// How many there are, once there is memory.
    count: usize,
    next: usize,
}

/// A path for rows of so many launches that are under way at once, within a process.
pub(crate) fn path<B: Backend>(launches: usize) -> (Inlet<B>, Outlet<B>) {
    let (to, forth) = sync_channel(launches);
    // Those of the memory before may come back as well.
    let (from, back) = sync_channel(2 * launches);
    let outlet = Outlet::Here { forth: to, back, spare: VecDeque::new(), rows: 0, launches };
    (Inlet::Here { forth, back: from }, outlet)
}

/// The ends that a device has of paths from and to other processes, to which it is linked, for rows of so many launches that are under
/// way at once. Rows that come are taken over at once.
pub(crate) fn links<B: Backend>(launches: usize) -> (Inlet<B>, Outlet<B>) {
    (Inlet::Away(Circle::of(2)), Outlet::Away(Circle::of(launches)))
}

impl<B: Backend> Source<'_, B> {
    /// Copies them into `rows` of `to`.
    pub(crate) fn read(self, backend: &B, to: &mut B::Buffer, rows: Rows<'_>) {
        match self {
            Self::Host(values) => backend.upload(values, to, rows),
            Self::Path(inlet) => inlet.take_over(backend, to, rows),
        }
    }
}

impl<B: Backend> Target<'_, B> {
    /// Has the first `rows` rows of `from` go there.
    pub(crate) fn write(self, backend: &B, from: &B::Buffer, rows: usize) {
        match self {
            Self::Host(values) => backend.download(from, rows, values),
            Self::Path(outlet) => outlet.hand_over(backend, from, rows),
        }
    }
}

impl<B: Backend> Outlet<B> {
    /// Makes parcels for launches of so many rows.
    pub(crate) fn allocate(&mut self, backend: &B, most_rows: usize, width: usize) {
        match self {
            Self::Here { back, spare, rows, launches, .. } => {
                *rows = most_rows;
                back.try_iter().for_each(drop);
                spare.clear();
                let parcel = |_| Parcel { parcel: backend.new_parcel(most_rows, width), rows: most_rows };
                spare.extend((0..*launches).map(parcel));
            }
            Self::Away(circle) => circle.allocate(backend, most_rows, width),
        }
    }

    fn hand_over(&mut self, backend: &B, from: &B::Buffer, count: usize) {
        match self {
            Self::Here { forth, back, spare, rows, .. } => {
                spare.extend(back.try_iter().filter(|parcel| parcel.rows == *rows));
                let mut parcel = spare.pop_front().expect("a parcel for every launch there can be");
                backend.hand_over(from, count, &mut parcel.parcel);
                if let Err(SendError(parcel)) = forth.send(parcel) {
                    // A stage that is lost has said so itself.
                    spare.push_back(parcel);
                }
            }
            Self::Away(circle) => {
                let parcel = circle.next();
                backend.hand_over(from, count, parcel);
                backend.send_on(parcel);
            }
        }
    }
}

impl<B: Backend> Inlet<B> {
    /// Makes parcels for launches of so many rows, where they do not come from the other end.
    pub(crate) fn allocate(&mut self, backend: &B, most_rows: usize, width: usize) {
        if let Self::Away(circle) = self {
            circle.allocate(backend, most_rows, width);
        }
    }

    fn take_over(&mut self, backend: &B, to: &mut B::Buffer, rows: Rows<'_>) {
        match self {
            Self::Here { forth, back } => {
                let Ok(mut parcel) = forth.recv() else { panic!("the stage before is lost") };
                backend.take_over(&mut parcel.parcel, to, rows);
                // Where nobody listens any more, nobody needs it.
                let _ = back.send(parcel);
            }
            Self::Away(circle) => {
                let parcel = circle.next();
                backend.receive_rows(parcel, rows.len());
                backend.take_over(parcel, to, rows);
            }
        }
    }
}

impl<B: Backend> Circle<B> {
    fn of(count: usize) -> Self {
        Self { parcels: Vec::new(), count, next: 0 }
    }

    fn allocate(&mut self, backend: &B, rows: usize, width: usize) {
        self.parcels.clear();
        self.parcels.extend((0..self.count).map(|_| backend.new_parcel(rows, width)));
    }

    fn next(&mut self) -> &mut B::Parcel {
        self.next = (self.next + 1) % self.parcels.len();
        &mut self.parcels[self.next]
    }
}
