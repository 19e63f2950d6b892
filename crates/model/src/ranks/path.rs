//! The way of a launch's rows from a device to that of the same rank in the next stage of a ring.
//!
//! Devices hand them over in parcels, in the order of launches. A parcel goes back when its rows were taken over.

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
pub(crate) struct Outlet<B: Backend> {
    forth: SyncSender<Parcel<B>>,
    back: Receiver<Parcel<B>>,
    spare: Vec<Parcel<B>>,
    /// For how many rows parcels have room.
    rows: usize,
    /// On their way at most, one of each launch.
    launches: usize,
}

/// The end of a path.
pub(crate) struct Inlet<B: Backend> {
    forth: Receiver<Parcel<B>>,
    back: SyncSender<Parcel<B>>,
}

struct Parcel<B: Backend> {
    parcel: B::Parcel,
    /// For how many rows it has room.
    rows: usize,
}

/// A path for rows of so many launches that are under way at once.
pub(crate) fn path<B: Backend>(launches: usize) -> (Outlet<B>, Inlet<B>) {
    let (to, forth) = sync_channel(launches);
    // Those of the memory before may come back as well.
    let (from, back) = sync_channel(2 * launches);
    let outlet = Outlet { forth: to, back, spare: Vec::new(), rows: 0, launches };
    (outlet, Inlet { forth, back: from })
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
    pub(crate) fn allocate(&mut self, backend: &B, rows: usize, width: usize) {
        self.rows = rows;
        self.back.try_iter().for_each(drop);
        self.spare.clear();
        self.spare
            .extend((0..self.launches).map(|_| Parcel { parcel: backend.new_parcel(rows, width), rows }));
    }

    fn hand_over(&mut self, backend: &B, from: &B::Buffer, rows: usize) {
        let Self { forth, back, spare, rows: capacity, .. } = self;
        spare.extend(back.try_iter().filter(|parcel| parcel.rows == *capacity));
        let mut parcel = spare.pop().expect("a parcel for every launch there can be");
        backend.hand_over(from, rows, &mut parcel.parcel);
        if let Err(SendError(parcel)) = forth.send(parcel) {
            // A stage that is lost has said so itself.
            spare.push(parcel);
        }
    }
}

impl<B: Backend> Inlet<B> {
    fn take_over(&mut self, backend: &B, to: &mut B::Buffer, rows: Rows<'_>) {
        let Ok(mut parcel) = self.forth.recv() else { panic!("the stage before is lost") };
        backend.take_over(&mut parcel.parcel, to, rows);
        // Where nobody listens any more, nobody needs it.
        let _ = self.back.send(parcel);
    }
}
