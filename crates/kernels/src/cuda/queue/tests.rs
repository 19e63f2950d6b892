//! What a device is asked for, and when.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Notes what it is asked for. Memory lies nowhere.
#[derive(Debug, Default)]
struct Noting {
    records_gathers: bool,
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
    type Parcel = ();

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

    fn parcel(&self, _: usize) {}

    fn put(&self, from: &Nowhere, _: usize, (): &mut ()) {
        self.note(format!("put {}", from.address));
    }

    fn take(&self, (): &mut (), _: usize, to: &Nowhere) {
        self.note(format!("take to {}", to.address));
    }

    fn send_on(&self, (): &mut (), _: usize) {}

    fn receive(&self, (): &mut (), _: usize) {}

    unsafe fn run(&self, work: &Work) {
        self.note(match work {
            Work::Launch(launch) => format!("run {:?}", launch.kernel),
            Work::Clear { address, .. } => format!("clear {address}"),
            Work::Gather { from, to, .. } => format!("gather {from} to {to}"),
        });
    }

    unsafe fn graph(&self, work: &[Work]) -> Option<usize> {
        self.note(format!("put {} together", work.len()));
        let is_scatter =
            |work: &Work| matches!(work, Work::Launch(launch) if launch.kernel == Kernel::Scatter);
        (!work.iter().any(is_scatter)).then_some(work.len())
    }

    unsafe fn replay(&self, graph: &usize) {
        self.note(format!("replay {graph}"));
    }

    fn mark(&self, _: &mut Option<()>) {
        self.note("mark");
    }

    fn is_past(&self, (): &()) -> bool {
        true
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

    fn records_gathers(&self) -> bool {
        self.records_gathers
    }

    fn is_linked(&self) -> bool {
        false
    }

    fn unlink(&self) {}
}

/// One that can record what ranks gather.
fn recording() -> Queue<Noting> {
    Queue::new(Noting { records_gathers: true, ..Noting::default() })
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
    launch(&queue, Kernel::Embed, &used, 3);
    queue.put(&used, 8, &mut ());
    assert_eq!(notes(&queue), ["run Embed", "put 64"]);
    launch(&queue, Kernel::Embed, &used, 3);
    queue.take(&mut (), 8, &other);
    assert_eq!(notes(&queue), ["run Embed", "take to 128"], "what waits may read what is overwritten");
    queue.all_gather(&used, 4, &other);
    queue.upload(&[], &other);
    assert_eq!(notes(&queue), ["gather 64 to 128", "upload 128"]);
    launch(&queue, Kernel::Embed, &used, 3);
    queue.send(&other, 4, &mut ());
    launch(&queue, Kernel::Embed, &used, 3);
    queue.landed(&mut ());
    assert_eq!(notes(&queue), ["run Embed", "send", "landed"], "what is asked for later is not waited for");
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
fn what_ranks_gather_parts_lists_where_it_cannot_be_recorded() {
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
fn what_ranks_gather_and_what_is_cleared_is_part_of_a_list() {
    let queue = recording();
    let memory = queue.allocate(64);
    let ask = || {
        queue.clear(&memory, 8);
        launch(&queue, Kernel::Embed, &memory, 3);
        queue.all_gather(&memory, 4, &memory);
        launch(&queue, Kernel::Embed, &memory, 3);
        queue.flush();
        notes(&queue)
    };
    assert_eq!(ask(), ["clear 64", "run Embed", "gather 64 to 64", "run Embed"]);
    assert_eq!(ask(), ["put 4 together", "replay 4"]);
    assert_eq!(ask(), ["replay 4"]);
}

#[test]
fn lists_that_one_rank_has_alone_take_no_place_of_those_that_all_have() {
    let queue = recording();
    let memory = queue.allocate(64);
    let ask = || {
        (0..FEW).for_each(|_| queue.all_gather(&memory, 4, &memory));
        queue.flush();
        notes(&queue)
    };
    ask();
    for rows in 0..=MOST_LISTS {
        (0..FEW).for_each(|_| launch(&queue, Kernel::Embed, &memory, rows));
        queue.flush();
    }
    notes(&queue);
    assert_eq!(ask(), ["put 4 together", "replay 4"]);
}

#[test]
fn no_list_outlives_memory() {
    let queue = Queue::new(Noting::default());
    let (memory, other) = (queue.allocate(64), queue.allocate(64));
    let ask = || {
        (0..FEW).for_each(|_| launch(&queue, Kernel::Embed, &memory, 3));
        queue.flush();
        notes(&queue).len()
    };
    assert_eq!((ask(), ask(), ask()), (FEW, 2, 1));
    drop(other);
    notes(&queue);
    assert_eq!(ask(), FEW);
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
    assert_eq!(queue.0.state().lists[0].len(), 1);
}
