//! Work that waits to be begun together, and launches that were put together because they came before.
//!
//! A tick asks for the same launches again and again: the same kernels in the same grids with the same addresses, for as many rows. What
//! is asked for waits until something must be known of it; then, if the same launches came before, the device runs them in one piece
//! (CUDA calls it a graph). Lists are compared as they are, so whatever changes an address or a count makes another list.
//!
//! What ranks gather is never part of one. NCCL wants all ranks of a group to record a gather or none, and each rank has lists of its
//! own; and a group that is lost could not be left while a graph has its gathers.
#![expect(unsafe_code, reason = "hands work to the device")]

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::device::{Argument, Device, Grid, Kernel, Launch, Memory, Work};

/// Lists shorter than this are begun one by one.
const FEW: usize = 4;
/// Lists that are remembered at most: for a few hundred numbers of rows, each in its two or three parts.
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
    /// Launches of what waits that follow on each other, kept for its memory.
    launches: Vec<Launch>,
    /// By what they do.
    lists: HashMap<Box<[Launch]>, List<D::Graph>>,
}

/// A list of launches that came before.
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
        let state = State { waiting: Vec::new(), launches: Vec::new(), lists: HashMap::new() };
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
}

impl<D: Device> Shared<D> {
    fn state(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins what waits.
    fn begin(&self) {
        let State { waiting, launches, lists } = &mut *self.state();
        for work in waiting.drain(..) {
            if let Work::Launch(launch) = work {
                launches.push(launch);
                continue;
            }
            self.launch(launches, lists);
            // SAFETY: its memory was asserted to be as long, and is not freed while this waits.
            unsafe { self.device.run(&work) };
        }
        self.launch(launches, lists);
    }

    /// Begins launches that follow on each other, and empties the list.
    fn launch(&self, launches: &mut Vec<Launch>, lists: &mut HashMap<Box<[Launch]>, List<D::Graph>>) {
        let device = &self.device;
        let each = |launches: &[Launch]| {
            // SAFETY: who asked for them vouched for their arguments, of which no memory is freed while they wait.
            launches.iter().for_each(|launch| unsafe { device.run(&Work::Launch(*launch)) });
        };
        if launches.len() < FEW {
            each(launches);
            return launches.clear();
        }
        let list = lists.get_mut(launches.as_slice());
        match list {
            // SAFETY: as above; the graph does what this list does.
            Some(List::Graph(graph)) => unsafe { device.replay(graph) },
            Some(List::Apart) => each(launches),
            Some(list) => {
                // SAFETY: as above.
                match unsafe { device.graph(launches) } {
                    Some(graph) => {
                        // SAFETY: as above.
                        unsafe { device.replay(&graph) };
                        *list = List::Graph(graph);
                    }
                    None => {
                        each(launches);
                        *list = List::Apart;
                    }
                }
            }
            None => {
                each(launches);
                if lists.len() == MOST_LISTS {
                    device.wait();
                    lists.clear();
                }
                lists.insert(launches.as_slice().into(), List::Seen);
            }
        }
        launches.clear();
    }
}

impl<D: Device> fmt::Debug for Shared<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { waiting, lists, .. } = &*self.state();
        let counts = (waiting.len(), lists.len());
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
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Notes what it is asked for. Memory lies nowhere.
    #[derive(Debug, Default)]
    struct Noting {
        notes: Arc<Mutex<Vec<String>>>,
        addresses: AtomicU64,
    }

    #[derive(Debug)]
    struct Nowhere {
        address: u64,
        notes: Arc<Mutex<Vec<String>>>,
    }

    impl Memory for Nowhere {
        fn address(&self) -> u64 {
            self.address
        }

        fn bytes(&self) -> usize {
            64
        }
    }

    impl Drop for Nowhere {
        fn drop(&mut self) {
            self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(format!("free {}", self.address));
        }
    }

    impl Noting {
        fn note(&self, what: impl Into<String>) {
            self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
        }
    }

    impl Device for Noting {
        type Memory = Nowhere;
        type Landing = ();
        type Mark = ();
        type Graph = usize;

        fn allocate(&self, _: usize) -> Nowhere {
            let address = self.addresses.fetch_add(64, Ordering::Relaxed) + 64;
            Nowhere { address, notes: Arc::clone(&self.notes) }
        }

        fn upload(&self, _: &[u8], to: &Nowhere) {
            self.note(format!("upload {}", to.address));
        }

        fn download(&self, _: &Nowhere, _: &mut [u8]) {
            self.note("download");
        }

        fn landing(&self, _: usize) {}

        fn send(&self, _: &Nowhere, _: usize, (): &mut ()) {
            self.note("send");
        }

        fn landed<'a>(&self, (): &'a mut ()) -> &'a [u8] {
            self.note("landed");
            &[]
        }

        unsafe fn run(&self, work: &Work) {
            self.note(match work {
                Work::Launch(launch) => format!("run {:?}", launch.kernel),
                Work::Clear { address, .. } => format!("clear {address}"),
                Work::Gather { from, to, .. } => format!("gather {from} to {to}"),
            });
        }

        unsafe fn graph(&self, launches: &[Launch]) -> Option<usize> {
            self.note(format!("put {} together", launches.len()));
            (launches[0].kernel != Kernel::Scatter).then_some(launches.len())
        }

        unsafe fn replay(&self, graph: &usize) {
            self.note(format!("replay {graph}"));
        }

        fn mark(&self, _: &mut Option<()>) {
            self.note("mark");
        }

        fn between(&self, (): &(), (): &()) -> Duration {
            Duration::ZERO
        }

        fn wait(&self) {
            self.note("wait");
        }

        fn ranks(&self) -> Option<usize> {
            Some(1)
        }
    }

    /// What the device was asked for since the last time.
    fn notes(queue: &Queue<Noting>) -> Vec<String> {
        std::mem::take(&mut *queue.device().notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn launch(queue: &Queue<Noting>, kernel: Kernel, memory: &Kept<Noting>, rows: usize) {
        let arguments = [Argument::start(memory), Argument::count(rows)];
        // SAFETY: the device runs nothing.
        unsafe { queue.launch(kernel, Grid::of(rows), &arguments) };
    }

    #[test]
    fn work_waits_until_something_must_be_known_of_it() {
        let queue = Queue::new(Noting::default());
        let (used, other) = (queue.allocate(64), queue.allocate(64));
        launch(&queue, Kernel::Embed, &used, 3);
        queue.clear(&used, 8);
        queue.upload(&[], &other);
        assert_eq!(notes(&queue), ["upload 128"], "it has nothing to do with what waits");
        queue.upload(&[], &used);
        assert_eq!(notes(&queue), ["run Embed", "clear 64", "upload 64"]);
        queue.all_gather(&used, 4, &other);
        queue.upload(&[], &other);
        assert_eq!(notes(&queue), ["gather 64 to 128", "upload 128"]);
        launch(&queue, Kernel::Embed, &used, 3);
        queue.send(&other, 4, &mut ());
        launch(&queue, Kernel::Embed, &used, 3);
        queue.landed(&mut ());
        assert_eq!(
            notes(&queue),
            ["run Embed", "send", "landed"],
            "what is asked for later is not waited for"
        );
        queue.download(&other, &mut []);
        launch(&queue, Kernel::Scatter, &used, 3);
        queue.wait();
        assert_eq!(notes(&queue), ["run Embed", "download", "run Scatter", "wait"]);
    }

    #[test]
    fn a_long_list_that_comes_again_is_put_together_and_then_replayed() {
        let queue = Queue::new(Noting::default());
        let memory = queue.allocate(64);
        let ask = |rows: usize| {
            (0..FEW).for_each(|_| launch(&queue, Kernel::Embed, &memory, rows));
            queue.send(&memory, 4, &mut ());
            notes(&queue)
        };
        let once = [vec!["run Embed"; FEW], vec!["send"]].concat();
        assert_eq!(ask(3), once);
        assert_eq!(ask(5), once, "another number of rows is another list");
        assert_eq!(ask(3), ["put 4 together", "replay 4", "send"]);
        assert_eq!(ask(3), ["replay 4", "send"]);
        assert_eq!(ask(5), ["put 4 together", "replay 4", "send"]);
        let other = queue.allocate(64);
        (0..FEW).for_each(|_| launch(&queue, Kernel::Embed, &other, 3));
        queue.wait();
        assert_eq!(notes(&queue).len(), FEW + 1, "another address is another list");
    }

    #[test]
    fn what_ranks_gather_parts_lists() {
        let queue = Queue::new(Noting::default());
        let memory = queue.allocate(64);
        let ask = || {
            (0..FEW).for_each(|_| launch(&queue, Kernel::Embed, &memory, 3));
            queue.all_gather(&memory, 4, &memory);
            (0..=FEW).for_each(|_| launch(&queue, Kernel::Embed, &memory, 3));
            queue.flush();
            notes(&queue)
        };
        let gather = "gather 64 to 64";
        assert_eq!(ask(), [vec!["run Embed"; FEW], vec![gather], vec!["run Embed"; FEW + 1]].concat());
        assert_eq!(ask(), ["put 4 together", "replay 4", gather, "put 5 together", "replay 5"]);
        assert_eq!(ask(), ["replay 4", gather, "replay 5"]);
    }

    #[test]
    fn what_the_device_cannot_put_together_runs_one_by_one() {
        let queue = Queue::new(Noting::default());
        let memory = queue.allocate(64);
        let ask = || {
            (0..FEW).for_each(|_| launch(&queue, Kernel::Scatter, &memory, 3));
            queue.flush();
            notes(&queue)
        };
        let apart = vec!["run Scatter"; FEW];
        assert_eq!(ask(), apart);
        assert_eq!(ask(), [vec!["put 4 together"], apart.clone()].concat());
        assert_eq!(ask(), apart, "and is not asked to again");
    }

    #[test]
    fn memory_outlives_the_work_that_waits() {
        let queue = Queue::new(Noting::default());
        let (memory, other) = (queue.allocate(64), queue.allocate(64));
        launch(&queue, Kernel::Embed, &memory, 3);
        drop(memory);
        assert_eq!(notes(&queue), ["run Embed", "free 64"]);
        launch(&queue, Kernel::Embed, &other, 3);
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _dropped_while_panicking = other;
            panic!("the device is broken");
        }));
        assert!(failed.is_err());
        assert_eq!(notes(&queue), ["free 128"], "what waits for a broken device is given up");
    }

    #[test]
    fn no_more_lists_are_remembered_than_there_is_room_for() {
        let queue = Queue::new(Noting::default());
        let memory = queue.allocate(64);
        for rows in 0..=MOST_LISTS {
            (0..FEW).for_each(|_| launch(&queue, Kernel::Embed, &memory, rows));
            queue.flush();
        }
        assert_eq!(queue.0.state().lists.len(), 1);
    }
}
