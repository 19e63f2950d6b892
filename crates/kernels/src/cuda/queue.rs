//! Work that waits to be begun together, and lists of it that were put together because they came before.
//!
//! A tick asks for the same work again and again: the same kernels in the same grids with the same addresses, for as many rows. What
//! is asked for waits until something must be known of it; then, if the same list came before, the device runs it in one piece
//! (CUDA calls it a graph). Lists are compared as they are, so whatever changes an address or a count makes another list.
//!
//! NCCL wants all ranks of a group to record a gather or none, and to run what they recorded together. So the lists that have one must
//! come again on every rank where they do on one. They do, since they follow from what all ranks are told alike: lists end at the same
//! gather, memory grows with rows and not with a rank's share of anything, and what one rank alone does (drawing) is a list of its own.
#![expect(unsafe_code, reason = "hands work to the device")]

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::device::{Argument, Device, Grid, Kernel, Launch, Memory, Work};

/// Lists shorter than this are begun one by one.
const FEW: usize = 4;
/// Lists of a kind that are remembered at most: for a few hundred numbers of rows, each in its two or three parts.
const MOST_LISTS: usize = 1024;

/// A device, and what waits for it.
#[derive(Debug)]
pub(super) struct Queue<D: Device>(Arc<Shared<D>>);

/// What memory needs to be freed.
struct Shared<D: Device> {
    /// Before the device, on which graphs end.
    state: Mutex<State<D>>,
    device: D,
}

struct State<D: Device> {
    waiting: Vec<Work>,
    /// Those that this device runs alone, and those that all ranks run.
    lists: [Lists<D::Graph>; 2],
}

/// What came before, by what it does.
type Lists<G> = HashMap<Box<[Work]>, List<G>>;

/// A list that came before.
enum List<G> {
    /// Once.
    Seen,
    /// More than once.
    Graph(G),
    /// The device cannot put them together.
    Apart,
}

/// Memory of the device. When it is dropped nothing waits that it is needed for.
pub struct Kept<D: Device> {
    memory: D::Memory,
    queue: Arc<Shared<D>>,
}

impl<D: Device> Queue<D> {
    pub(super) fn new(device: D) -> Self {
        let state = State { waiting: Vec::new(), lists: Default::default() };
        Self(Arc::new(Shared { state: Mutex::new(state), device }))
    }

    pub(super) fn device(&self) -> &D {
        &self.0.device
    }

    /// See [`Device::allocate`].
    pub(super) fn allocate(&self, bytes: usize) -> Kept<D> {
        Kept { memory: self.0.device.allocate(bytes), queue: Arc::clone(&self.0) }
    }

    /// Copies `from` to the start of `to`, behind what is asked for before it if that has to do with `to`.
    pub(super) fn upload(&self, from: &[u8], to: &Kept<D>) {
        let (start, end) = (to.address(), to.address() + to.bytes() as u64);
        let is_needed = self.0.state().waiting.iter().any(|work| work.touches(start, end));
        if is_needed {
            self.0.begin();
        }
        self.0.device.upload(from, &to.memory);
    }

    /// See [`Device::download`].
    pub(super) fn download(&self, from: &Kept<D>, to: &mut [u8]) {
        self.0.begin();
        self.0.device.download(&from.memory, to);
    }

    /// See [`Device::landing`].
    pub(super) fn landing(&self, bytes: usize) -> D::Landing {
        self.0.device.landing(bytes)
    }

    /// See [`Device::send`].
    pub(super) fn send(&self, from: &Kept<D>, bytes: usize, to: &mut D::Landing) {
        self.0.begin();
        self.0.device.send(&from.memory, bytes, to);
    }

    /// See [`Device::landed`].
    pub(super) fn landed<'a>(&self, landing: &'a mut D::Landing) -> &'a [u8] {
        self.0.device.landed(landing)
    }

    /// See [`Device::parcel`].
    pub(super) fn parcel(&self, bytes: usize) -> D::Parcel {
        self.0.device.parcel(bytes)
    }

    /// See [`Device::put`].
    pub(super) fn put(&self, from: &Kept<D>, bytes: usize, parcel: &mut D::Parcel) {
        self.0.begin();
        self.0.device.put(&from.memory, bytes, parcel);
    }

    /// See [`Device::take`].
    pub(super) fn take(&self, parcel: &mut D::Parcel, bytes: usize, to: &Kept<D>) {
        self.0.begin();
        self.0.device.take(parcel, bytes, &to.memory);
    }

    /// See [`Device::send_on`].
    pub(super) fn send_on(&self, parcel: &mut D::Parcel, bytes: usize) {
        self.0.device.send_on(parcel, bytes);
    }

    /// See [`Device::receive`].
    pub(super) fn receive(&self, parcel: &mut D::Parcel, bytes: usize) {
        self.0.device.receive(parcel, bytes);
    }

    /// Sets the first `bytes` of `memory` to zero.
    pub(super) fn clear(&self, memory: &Kept<D>, bytes: usize) {
        assert!(bytes <= memory.bytes(), "{bytes} bytes of {}", memory.bytes());
        self.0.state().waiting.push(Work::Clear { address: memory.address(), bytes });
    }

    /// Puts the first `bytes` of every rank's `from` side by side into `to`, by rank. All ranks call it alike; `bytes` is a multiple
    /// of four.
    pub(super) fn all_gather(&self, from: &Kept<D>, bytes: usize, to: &Kept<D>) {
        let ranks = self.ranks().expect("a device of a group");
        assert!(bytes <= from.bytes(), "{bytes} bytes of {}", from.bytes());
        assert!(bytes * ranks <= to.bytes(), "{ranks} times {bytes} bytes to {}", to.bytes());
        let (from, to) = (from.address(), to.address());
        self.0.state().waiting.push(Work::Gather { from, bytes, to });
    }

    /// Runs a kernel.
    ///
    /// # Safety
    /// `arguments` are as many, and of the types, that the kernel's source declares, and every address among them leads to as
    /// much memory of this device as the kernel touches in this grid.
    pub(super) unsafe fn launch(&self, kernel: Kernel, grid: Grid, arguments: &[Argument]) {
        self.0.state().waiting.push(Work::Launch(Launch::new(kernel, grid, arguments)));
    }

    /// See [`Device::mark`].
    pub(super) fn mark(&self, mark: &mut Option<D::Mark>) {
        self.0.begin();
        self.0.device.mark(mark);
    }

    /// See [`Device::is_past`].
    pub(super) fn is_past(&self, mark: &D::Mark) -> bool {
        self.0.device.is_past(mark)
    }

    /// See [`Device::between`].
    pub(super) fn between(&self, from: &D::Mark, to: &D::Mark) -> Duration {
        self.0.device.between(from, to)
    }

    /// Begins what waits.
    pub(super) fn flush(&self) {
        self.0.begin();
    }

    /// Waits for everything asked for before.
    pub(super) fn wait(&self) {
        self.0.begin();
        self.0.device.wait();
    }

    /// See [`Device::ranks`].
    pub(super) fn ranks(&self) -> Option<usize> {
        self.0.device.ranks()
    }

    /// See [`Device::is_linked`].
    pub(super) fn is_linked(&self) -> bool {
        self.0.device.is_linked()
    }

    /// See [`Device::unlink`].
    pub(super) fn unlink(&self) {
        self.0.device.unlink();
    }
}

impl<D: Device> Shared<D> {
    fn state(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins what waits.
    fn begin(&self) {
        let State { waiting, lists } = &mut *self.state();
        let can_record = self.device.records_gathers();
        for list in waiting.chunk_by(|a, b| can_record || !(a.is_shared() || b.is_shared())) {
            self.begin_list(list, lists);
        }
        waiting.clear();
    }

    /// Begins `work`, in one piece if it came before.
    fn begin_list(&self, work: &[Work], lists: &mut [Lists<D::Graph>; 2]) {
        let device = &self.device;
        let each = || {
            // SAFETY: who asked for it vouched for its addresses, of which no memory is freed while it waits.
            work.iter().for_each(|work| unsafe { device.run(work) });
        };
        if work.len() < FEW {
            return each();
        }
        let is_shared = work.iter().any(Work::is_shared);
        let lists = &mut lists[usize::from(is_shared)];
        match lists.get_mut(work) {
            // SAFETY: as above; the graph does what this list does.
            Some(List::Graph(graph)) => unsafe { device.replay(graph) },
            Some(List::Apart) => each(),
            Some(list) => {
                // SAFETY: as above.
                match unsafe { device.graph(work) } {
                    Some(graph) => {
                        // SAFETY: as above.
                        unsafe { device.replay(&graph) };
                        *list = List::Graph(graph);
                    }
                    None => {
                        assert!(!is_shared, "a rank cannot record what all ranks record");
                        each();
                        *list = List::Apart;
                    }
                }
            }
            None => {
                each();
                if lists.len() == MOST_LISTS {
                    device.wait();
                    lists.clear();
                }
                lists.insert(work.into(), List::Seen);
            }
        }
    }
}

impl<D: Device> fmt::Debug for Shared<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { waiting, lists } = &*self.state();
        let counts = (waiting.len(), lists.each_ref().map(HashMap::len));
        f.debug_struct("Shared").field("device", &self.device).field("counts", &counts).finish()
    }
}

impl<D: Device> Memory for Kept<D> {
    fn address(&self) -> u64 {
        self.memory.address()
    }

    fn bytes(&self) -> usize {
        self.memory.bytes()
    }
}

impl<D: Device> fmt::Debug for Kept<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.memory.fmt(f)
    }
}

impl<D: Device> Drop for Kept<D> {
    fn drop(&mut self) {
        if thread::panicking() {
            // Nobody wants any more what waits, and it may be what failed.
            self.queue.state().waiting.clear();
        } else {
            self.queue.begin();
        }
        // Nor does a graph lead to memory that is gone.
        self.queue.state().lists.iter_mut().for_each(HashMap::clear);
    }
}
