//! A cluster of simulated hosts.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use object_store::memory::InMemory;
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;
use turmoil::{Builder, Sim};
use windlass_store::seed_jitter;

use crate::dice::Dice;
use crate::faults::Faults;
use crate::network::{PORT, channel};
use crate::requests::UNDISTURBED;
use crate::store::{self, Calls, RemoteStore};
use crate::{hosts, seeds};

/// How long faults go on.
pub(crate) const FAULTS: Duration = Duration::from_secs(10);
/// The longest that anything may take.
const LONGEST: Duration = Duration::from_secs(180);
/// Each host runs for so long before the next one does.
const TICK: Duration = Duration::from_millis(5);

/// What happened, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    pub(crate) fn note(&self, at: Duration, what: &str) {
        self.0.lock().expect("not poisoned").push(format!("{at:?} {what}"));
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().expect("not poisoned").clone()
    }
}

/// The hosts that never come back, once the faults are over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gone(Arc<Mutex<BTreeSet<String>>>);

impl Gone {
    pub(crate) fn add(&self, host: &str) {
        self.0.lock().expect("not poisoned").insert(host.to_owned());
    }

    pub(crate) fn contains(&self, host: &str) -> bool {
        self.0.lock().expect("not poisoned").contains(host)
    }
}

/// How a client reaches the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) name: String,
    pub(crate) dice: Arc<Dice>,
    pub(crate) trace: Trace,
}

impl Way {
    /// A channel to the coordinator of this number.
    pub(crate) fn coordinator(&self, number: usize) -> Channel {
        channel(&format!("{}:{PORT}", coordinator(number)))
    }

    /// A channel to the worker of this number.
    pub(crate) fn worker(&self, number: usize) -> Channel {
        channel(&format!("{}:{PORT}", worker(number)))
    }

    /// Whether there still are faults.
    pub(crate) fn is_disturbed(&self) -> bool {
        now() < FAULTS
    }

    pub(crate) fn note(&self, what: &str) {
        self.trace.note(now(), &format!("{}: {what}", self.name));
    }
}

/// Time since the simulation began.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// Name of the coordinator of this number.
pub(crate) fn coordinator(number: usize) -> String {
    format!("coordinator-{number}")
}

/// Name of the worker of this number.
pub(crate) fn worker(number: usize) -> String {
    format!("worker-{number}")
}

pub(crate) struct Cluster {
    pub(crate) sim: Sim<'static>,
    pub(crate) dice: Arc<Dice>,
    pub(crate) trace: Trace,
    pub(crate) faults: Faults,
    inlet: store::Inlet,
    objects: Arc<InMemory>,
}

impl Cluster {
    /// A store, workers and coordinators, which begin at once.
    pub(crate) fn new(seed: u64, coordinators: usize, workers: usize) -> Self {
        seed_jitter(seed);
        let dice = Arc::new(Dice::new(seed));
        let mut builder = Builder::new();
        builder.rng_seed(seed).tick_duration(TICK).simulation_duration(LONGEST);
        builder.min_message_latency(Duration::from_millis(1)).max_message_latency(dice.between_ms(2, 40));
        builder.enable_random_order();
        let (inlet, calls) = mpsc::unbounded_channel();
        let (sim, trace) = (builder.build(), Trace::default());
        let mut cluster =
            Self { sim, dice, trace, faults: Faults::default(), inlet, objects: Arc::default() };
        cluster.begin_store(calls);
        for number in 0..workers {
            cluster.begin_worker(worker(number));
        }
        for number in 0..coordinators {
            cluster.begin_coordinator(coordinator(number));
        }
        cluster
    }

    /// A client, which ends the simulation with an error if it fails.
    pub(crate) fn client<F>(&mut self, name: &str, run: impl FnOnce(Way) -> F)
    where
        F: Future<Output = turmoil::Result> + 'static,
    {
        let way = Way { name: name.to_owned(), dice: Arc::clone(&self.dice), trace: self.trace.clone() };
        self.sim.client(name, run(way));
    }

    /// Runs until all clients are done, with faults until it is time for them to end.
    pub(crate) fn run(&mut self) {
        while !self.step() {
            self.disturb();
        }
    }

    /// Runs until all clients are done.
    pub(crate) fn run_undisturbed(&mut self) {
        while !self.step() {}
    }

    fn step(&mut self) -> bool {
        self.sim.step().unwrap_or_else(|error| {
            let trace = self.trace.lines();
            let tail = &trace[trace.len().saturating_sub(60)..];
            panic!("{error}\nafter\n{}", tail.join("\n"))
        })
    }

    /// The store as a new host sees it, and the switch that cuts it off.
    fn store(&self) -> (RemoteStore, watch::Sender<bool>) {
        let cut = watch::Sender::new(false);
        let (away, dice, inlet) = (cut.subscribe(), Arc::clone(&self.dice), self.inlet.clone());
        (RemoteStore { inlet, away, dice }, cut)
    }

    fn begin_store(&mut self, calls: Calls) {
        let calls = Mutex::new(Some(calls));
        self.sim.host("store", move || {
            let calls = calls.lock().expect("not poisoned").take();
            async move {
                store::run(calls.expect("the store never ends")).await;
                Ok(())
            }
        });
    }

    fn begin_worker(&mut self, name: String) {
        let (store, cut) = self.store();
        let end = watch::Sender::new(false);
        self.faults.add_worker(name.clone(), cut, end.clone());
        self.sim.host(name.clone(), move || {
            end.send_replace(false);
            hosts::worker(name.clone(), store.clone(), end.subscribe())
        });
    }

    fn begin_coordinator(&mut self, name: String) {
        let (store, cut) = self.store();
        let seed = self.dice.roll(u64::MAX);
        self.faults.add_coordinator(name.clone(), cut);
        let objects = Arc::clone(&self.objects);
        self.sim.host(name, move || hosts::coordinator(store.clone(), Arc::clone(&objects), seed));
    }
}

/// Runs a simulation for many seeds; a seed that fails is named.
pub(crate) fn for_seeds(simulate: impl Fn(u64)) {
    // A simulation of its own, which would reseed the thread in the middle of another.
    LazyLock::force(&UNDISTURBED);
    for seed in seeds() {
        let failed = FailedSeed(seed);
        simulate(seed);
        drop(failed);
    }
}

struct FailedSeed(u64);

impl Drop for FailedSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {0}: WINDLASS_SEEDS={0}..={0} runs it again", self.0);
        }
    }
}
