//! Threads that share the work of one operation: fork, join, nothing else.
//!
//! The calling thread is one of the team. Work is a number of parts; each thread begins with its own stretch of them and
//! then helps the others, so a thread that the system does not run holds nobody up: the rest does its parts, and
//! the caller waits only for threads that are in the middle of one. Threads wait for work by spinning for
//! [`SPIN`], then they sleep. Nothing is allocated after construction.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a thread waits awake. Longer than the gaps between the products of a tick, far shorter than a time slice.
const SPIN: Duration = Duration::from_micros(20);

/// How long a thread may take over a part before others help it.
const GRACE: Duration = Duration::from_micros(5);

/// A fixed number of threads.
#[derive(Debug)]
pub(super) struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Set while a job runs: one that begins inside another stays on its thread.
    busy: AtomicBool,
}

impl Team {
    /// A team of `threads`, the caller's among them; at least 1.
    ///
    /// # Panics
    /// If the system refuses the threads.
    pub(super) fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared::new(threads.max(1)));
        let start = |me: usize| {
            let shared = Arc::clone(&shared);
            let name = format!("windlass-cpu-{me}");
            thread::Builder::new()
                .name(name)
                .spawn(move || shared.serve(me))
                .expect("threads of the CPU backend")
        };
        let workers = (1..threads.max(1)).map(start).collect();
        Self { shared, workers, busy: AtomicBool::new(false) }
    }

    /// How many threads.
    pub(super) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `part` once with each of `0..parts`, on all threads, and returns when all calls have.
    ///
    /// # Panics
    /// If a call does, after the others have returned.
    pub(super) fn run(&self, parts: usize, part: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || parts < 2 || self.busy.swap(true, Ordering::Acquire) {
            return (0..parts).for_each(part);
        }
        self.shared.open(parts, part);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        let closing = Closing(self);
        self.shared.work(0);
        drop(closing);
        if self.shared.panicked.load(Ordering::Acquire) {
            let panic = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
            resume_unwind(panic.expect("what a worker panicked with"));
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // Its panics were caught and passed on.
            let _ = worker.join();
        }
    }
}

/// Ends a job when dropped, whether or not the caller's own part panicked.
struct Closing<'a>(&'a Team);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.shared.close();
        self.0.busy.store(false, Ordering::Release);
    }
}

/// One job: `parts` calls of `part`.
struct Job {
    part: *const (dyn Fn(usize) + Sync),
    parts: usize,
    caller: Thread,
}

/// The first part of a thread's stretch that nobody took. On a cache line of its own.
#[repr(align(128))]
struct Cursor(AtomicUsize);

struct Shared {
    /// Generation of the job in the upper half, [`OPEN`], and how many workers are inside it.
    gate: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    /// One per thread.
    cursors: Vec<Cursor>,
    stop: AtomicBool,
    panicked: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Workers may enter the job.
const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const GENERATION: u64 = 1 << 32;

#[expect(
    unsafe_code,
    reason = "the job is written by the caller and read by workers, never at the same time"
)]
// SAFETY: `job` is written while the gate is closed and nobody inside, and read by those who entered an open gate.
unsafe impl Sync for Shared {}
#[expect(unsafe_code, reason = "the pointer in `job` is only followed between `open` and `close`")]
// SAFETY: what `job` points to is `Sync`, and outlives the job.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("threads", &self.cursors.len()).finish_non_exhaustive()
    }
}

impl Shared {
    fn new(threads: usize) -> Self {
        Self {
            gate: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            cursors: (0..threads).map(|_| Cursor(AtomicUsize::new(0))).collect(),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            panic: Mutex::new(None),
        }
    }

    /// Where thread `thread`'s stretch of `parts` begins.
    fn stretch(&self, thread: usize, parts: usize) -> usize {
        thread * parts / self.cursors.len()
    }

    /// Lets workers into a job. The caller must `close` before `part` goes away.
    fn open(&self, parts: usize, part: &(dyn Fn(usize) + Sync)) {
        let part: *const (dyn Fn(usize) + Sync + '_) = part;
        #[expect(unsafe_code, reason = "a job outlives no call of `run`, which the type cannot say")]
        // SAFETY: only the lifetime changes; `run` closes the job before it returns or unwinds.
        let part: *const (dyn Fn(usize) + Sync + 'static) = unsafe { std::mem::transmute(part) };
        for (thread, cursor) in self.cursors.iter().enumerate() {
            cursor.0.store(self.stretch(thread, parts), Ordering::Relaxed);
        }
        self.panicked.store(false, Ordering::Relaxed);
        #[expect(unsafe_code, reason = "see `Sync`")]
        // SAFETY: the gate is closed and nobody is inside; `busy` keeps other callers out.
        unsafe {
            *self.job.get() = Some(Job { part, parts, caller: thread::current() });
        }
        let generation = self.gate.load(Ordering::Relaxed) & !(GENERATION - 1);
        self.gate.store(generation.wrapping_add(GENERATION) | OPEN, Ordering::Release);
    }

    /// Lets nobody else in and waits for those inside.
    fn close(&self) {
        self.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut patience = Patience::new();
        while self.gate.load(Ordering::Acquire) & INSIDE != 0 {
            patience.wait();
        }
    }

    /// A worker's life: enter each job that is still open, work, leave.
    fn serve(&self, me: usize) {
        let mut seen = 0;
        while let Some(generation) = self.enter(seen) {
            seen = generation;
            let caller = self.job().caller.clone();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.work(me))) {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
                self.panicked.store(true, Ordering::Release);
            }
            // From here on the job may be gone.
            let before = self.gate.fetch_sub(1, Ordering::AcqRel);
            if before & (OPEN | INSIDE) == 1 {
                caller.unpark();
            }
        }
    }

    /// Waits for a job after generation `seen` and enters it; none when the team is dropped.
    fn enter(&self, seen: u64) -> Option<u64> {
        let mut patience = Patience::new();
        loop {
            let gate = self.gate.load(Ordering::Acquire);
            if gate & OPEN != 0 && gate / GENERATION != seen {
                if self.gate.compare_exchange(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    return Some(gate / GENERATION);
                }
            } else if self.stop.load(Ordering::Acquire) {
                return None;
            } else {
                patience.wait();
            }
        }
    }

    fn job(&self) -> &Job {
        #[expect(unsafe_code, reason = "see `Sync`")]
        // SAFETY: called by threads inside an open job and by its caller, while nobody writes.
        unsafe { &*self.job.get() }.as_ref().expect("a job while the gate is open")
    }

    /// Does parts until none is left: first those of one's own stretch, then the others'.
    fn work(&self, me: usize) {
        let (job, threads) = (self.job(), self.cursors.len());
        #[expect(unsafe_code, reason = "see `Job`")]
        // SAFETY: what it points to lives until the job is closed, which waits for this thread.
        let part = unsafe { &*job.part };
        for owner in (me..threads).chain(0..me) {
            let (cursor, end) = (&self.cursors[owner].0, self.stretch(owner + 1, job.parts));
            let mut watch = Watch::new();
            while (owner == me || watch.should_help(cursor, end)) && cursor.load(Ordering::Relaxed) < end {
                let next = cursor.fetch_add(1, Ordering::Relaxed);
                if next < end {
                    watch.helped(next + 1);
                    part(next);
                }
            }
        }
    }
}

/// Whether a thread gets on with its stretch. One that does is left alone: its caches hold what its parts need.
struct Watch {
    cursor: usize,
    since: Option<Instant>,
    stuck: bool,
}

impl Watch {
    fn new() -> Self {
        Self { cursor: usize::MAX, since: None, stuck: false }
    }

    /// Waits until `cursor` is at `end` (false) or has not moved for [`GRACE`] (true).
    fn should_help(&mut self, cursor: &AtomicUsize, end: usize) -> bool {
        loop {
            let now_at = cursor.load(Ordering::Relaxed);
            if now_at >= end {
                return false;
            }
            if now_at != self.cursor {
                *self = Self { cursor: now_at, since: Some(Instant::now()), stuck: false };
            } else if self.stuck || self.since.is_some_and(|since| since.elapsed() > GRACE) {
                self.stuck = true;
                return true;
            }
            std::hint::spin_loop();
        }
    }

    /// The next part of a thread that is stuck can be taken at once, unless it has moved since.
    fn helped(&mut self, cursor: usize) {
        self.cursor = cursor;
    }
}

/// Waiting awake for a while, then asleep until unparked.
struct Patience {
    since: Option<Instant>,
}

impl Patience {
    fn new() -> Self {
        Self { since: None }
    }

    /// Returns now and then; the caller looks whether there is news.
    fn wait(&mut self) {
        if self.since.get_or_insert_with(Instant::now).elapsed() < SPIN {
            std::hint::spin_loop();
        } else {
            thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once_on_any_number_of_threads() {
        for threads in [1, 2, 3, 7] {
            let team = Team::new(threads);
            for parts in [0, 1, 2, 3, 64, 1000] {
                let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                team.run(parts, &|part| {
                    counts[part].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_team_that_slept_wakes_up() {
        let team = Team::new(3);
        for _ in 0..50 {
            thread::sleep(Duration::from_micros(300));
            let sum = AtomicUsize::new(0);
            team.run(10, &|part| {
                sum.fetch_add(part, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 45);
        }
    }

    #[test]
    fn a_panic_in_any_part_reaches_the_caller_and_the_team_goes_on() {
        let team = Team::new(3);
        for bad in 0..30 {
            let run = || team.run(30, &|part| assert_ne!(part, bad, "part {bad}"));
            let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            assert!(panic.downcast_ref::<String>().unwrap().contains(&format!("part {bad}")));
        }
        team.run(30, &|_| {});
    }

    #[test]
    fn a_job_inside_a_job_stays_on_its_thread() {
        let team = Team::new(2);
        let sum = AtomicUsize::new(0);
        team.run(4, &|_| {
            let here = thread::current().id();
            team.run(5, &|_| {
                assert_eq!(thread::current().id(), here);
                sum.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 20);
    }
}
