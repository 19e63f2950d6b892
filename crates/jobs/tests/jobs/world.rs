use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use futures::stream::{self, TryStreamExt};
use object_store::memory::InMemory;
use tokio::task::JoinHandle;
use windlass_jobs::{Blobs, Jobs, JobsConfig, JobsError};
use windlass_proto::v1::{ItemResult, Job, JobItem, JobSpec};
use windlass_store::{LeaseId, MemoryStore, Page, Store};

use crate::answers::{Answers, items};
use crate::dice::Dice;
use crate::flaky_blobs::FlakyBlobs;
use crate::flaky_store::FlakyStore;

/// Everything that outlives a process, and the ways to break it.
pub(crate) struct World {
    pub(crate) dice: Arc<Dice>,
    pub(crate) store: MemoryStore,
    pub(crate) blobs: Arc<InMemory>,
    pub(crate) answers: Arc<Answers>,
    pub(crate) config: JobsConfig,
    /// Commits that write a record and are not answered.
    pub(crate) unanswered: Arc<AtomicU32>,
    /// Whether no object may be read.
    pub(crate) denies: Arc<AtomicBool>,
}

/// A process that works on jobs.
pub(crate) struct Process(JoinHandle<()>);

impl Process {
    /// Ends it wherever it is. Its lease runs out by itself.
    pub(crate) async fn kill(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

impl World {
    /// Without faults but in answers.
    pub(crate) fn new(seed: u64) -> Self {
        let dice = Arc::new(Dice::new(seed));
        let answers = Answers::new(Arc::clone(&dice), 5);
        let (store, blobs, config) = (MemoryStore::default(), Arc::default(), JobsConfig::default());
        let (unanswered, denies) = (Arc::default(), Arc::default());
        Self { dice, store, blobs, answers, config, unanswered, denies }
    }

    /// Jobs over stores without faults.
    pub(crate) fn jobs(&self) -> Jobs {
        self.jobs_with(0)
    }

    /// Jobs over stores that fail so often.
    pub(crate) fn jobs_with(&self, fault_percent: u64) -> Jobs {
        let (store, blobs, dice) = (self.store.clone(), Arc::clone(&self.blobs), &self.dice);
        let unanswered = Arc::clone(&self.unanswered);
        let store = FlakyStore { store, dice: Arc::clone(dice), fault_percent, unanswered };
        let denies = Arc::clone(&self.denies);
        let blobs = FlakyBlobs { blobs, dice: Arc::clone(dice), fault_percent, denies };
        Jobs::new(self.config.clone(), Arc::new(store), Blobs::of(Arc::new(blobs)))
    }

    pub(crate) fn process(&self, fault_percent: u64) -> Process {
        let jobs = self.jobs_with(fault_percent);
        let answers = Arc::clone(&self.answers);
        Process(tokio::spawn(async move { jobs.run(answers, std::future::pending()).await }))
    }

    /// Kills and starts processes and ends leases at random, until it is dropped.
    pub(crate) async fn havoc(&self, processes: &mut [Option<Process>]) {
        loop {
            self.dice.wait(4000).await;
            let chosen = self.dice.roll(processes.len() as u64) as usize;
            match (self.dice.roll(3), processes[chosen].take()) {
                (0, Some(process)) => process.kill().await,
                (1, process) => {
                    // Granted one after the other, from 1 on.
                    let lease = LeaseId(1 + self.dice.roll(20) as i64);
                    self.store.revoke(lease).await.unwrap();
                    processes[chosen] = process;
                }
                (_, process) => processes[chosen] = Some(process.unwrap_or_else(|| self.process(10))),
            }
        }
    }

    /// Keys below `jobs/`, with this beginning.
    pub(crate) async fn keys(&self, below: &str) -> Vec<String> {
        let prefix = format!("/windlass/v1/main/jobs/{below}");
        let listing = self.store.list(&prefix, Page::ALL).await.unwrap();
        listing.entries.into_iter().map(|entry| entry.key).collect()
    }

    /// Names of all objects.
    pub(crate) async fn objects(&self) -> Vec<String> {
        use object_store::ObjectStore;
        let objects: Vec<_> = self.blobs.list(None).try_collect().await.unwrap();
        objects.into_iter().map(|object| object.location.to_string()).collect()
    }
}

/// Submits `count` items over stores without faults.
pub(crate) async fn submit(jobs: &Jobs, count: u64) -> Job {
    submit_items(jobs, JobSpec::default(), items(count)).await.unwrap()
}

pub(crate) async fn submit_items(jobs: &Jobs, spec: JobSpec, items: Vec<JobItem>) -> Result<Job, JobsError> {
    jobs.submit(spec, stream::iter(items.into_iter().map(Ok))).await
}

/// Waits until the job has ended.
pub(crate) async fn ended(jobs: &Jobs, id: &str) -> Job {
    for _ in 0..36_000 {
        let job = jobs.get(id).await.unwrap();
        if job.ended_ms.is_some() {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the job did not end within an hour: {:?}", jobs.get(id).await);
}

pub(crate) async fn results(jobs: &Jobs, id: &str) -> Vec<ItemResult> {
    jobs.results(id, "").unwrap().try_collect().await.unwrap()
}

/// Runs a test under a clock that stands still, once for each seed.
pub(crate) fn for_seeds<F: Future<Output = ()>>(seeds: u64, test: impl Fn(u64) -> F) {
    for seed in 0..seeds {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().unwrap();
        let failed = FailedSeed(seed);
        runtime.block_on(test(seed));
        std::mem::drop(failed);
    }
}

/// Says which seed it was when a test panics.
struct FailedSeed(u64);

impl Drop for FailedSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {}", self.0);
        }
    }
}
