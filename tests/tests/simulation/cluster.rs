//! A cluster of simulated hosts.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use object_store::memory::InMemory;
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;
use tracing::subscriber::DefaultGuard;
use turmoil::{Builder, Sim};
use windlass_store::seed_jitter;

use crate::dice::Dice;
use crate::faults::Faults;
use crate::network::{PORT, channel};
use crate::requests::UNDISTURBED;
use crate::store::{self, Calls, Cut, RemoteStore};
use crate::trace::Trace;
use crate::{hosts, seeds};

/// How long faults go on.
pub(crate) const FAULTS: Duration = Duration::from_secs(10);
/// The longest that anything may take.
const LONGEST: Duration = Duration::from_secs(180);
/// Each host runs for so long before the next one does.
const TICK: Duration = Duration::from_millis(5);
/// How many links become faster or slower in each tick.
const LINKS: usize = 8;
const FASTEST: Duration = Duration::from_millis(1);

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
    /// Hosts and clients.
    ends: Vec<String>,
    /// The longest that a message is on its way.
    slowest_ms: u64,
    _listening: DefaultGuard,
}

impl Cluster {
    /// A store, workers and coordinators, which begin at once.
    pub(crate) fn new(seed: u64, coordinators: usize, workers: usize) -> Self {
        seed_jitter(seed);
        let dice = Arc::new(Dice::new(seed));
        let mut builder = Builder::new();
        builder.rng_seed(seed).tick_duration(TICK).simulation_duration(LONGEST);
        // The same for all messages of a link, until `vary_latencies` draws another: so it does not depend on how often anyone
        // has sent before, which tonic's servers leave to chance when they end.
        builder.min_message_latency(FASTEST).max_message_latency(FASTEST);
        let (inlet, calls) = mpsc::unbounded_channel();
        let trace = Trace::default();
        let mut cluster = Self {
            sim: builder.build(),
            slowest_ms: 2 + dice.roll(39),
            dice,
            faults: Faults::default(),
            inlet,
            objects: Arc::default(),
            ends: Vec::new(),
            _listening: trace.listen(),
            trace,
        };
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
        self.ends.push(name.to_owned());
    }

    /// Runs until all clients are done, with faults until it is time for them to end; what happened.
    pub(crate) fn run(mut self) -> String {
        while !self.step() {
            self.disturb();
        }
        self.trace.text()
    }

    /// Runs until all clients are done.
    pub(crate) fn run_undisturbed(mut self) {
        while !self.step() {}
    }

    fn step(&mut self) -> bool {
        self.vary_latencies();
        self.sim.step().unwrap_or_else(|error| panic!("{error}\nafter\n{}", self.trace.tail()))
    }

    fn vary_latencies(&self) {
        for _ in 0..LINKS {
            let (one, other) = (self.dice.pick(&self.ends), self.dice.pick(&self.ends));
            if one != other {
                let latency = self.dice.between_ms(1, self.slowest_ms);
                self.sim.set_link_latency(one.as_str(), other.as_str(), latency);
            }
        }
    }

    /// The store as a new host sees it, and the switch that cuts it off.
    fn store(&self) -> (RemoteStore, Arc<Cut>) {
        let cut = Arc::new(Cut::default());
        let (dice, inlet) = (Arc::clone(&self.dice), self.inlet.clone());
        (RemoteStore { inlet, cut: Arc::clone(&cut), dice }, cut)
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
        self.ends.push(name.clone());
        self.sim.host(name.clone(), move || {
            end.send_replace(false);
            hosts::worker(name.clone(), store.clone(), end.subscribe())
        });
    }

    fn begin_coordinator(&mut self, name: String) {
        let (store, cut) = self.store();
        let seed = self.dice.roll(u64::MAX);
        self.faults.add_coordinator(name.clone(), cut);
        self.ends.push(name.clone());
        let objects = Arc::clone(&self.objects);
        self.sim.host(name, move || hosts::coordinator(store.clone(), Arc::clone(&objects), seed));
    }
}

/// Runs a simulation for many seeds; a seed that fails is named.
pub(crate) fn for_seeds(name: &str, simulate: impl Fn(u64) -> String) {
    for seed in seeds() {
        let happened = run_seed(&simulate, seed);
        if let Some(folder) = std::env::var_os("WINDLASS_TRACES") {
            let path = Path::new(&folder).join(format!("{name}-{seed}.txt"));
            std::fs::write(path, happened).expect("WINDLASS_TRACES is a folder");
        }
    }
}

/// Runs a simulation for one seed, which is named if it fails; what happened.
pub(crate) fn run_seed(simulate: impl Fn(u64) -> String, seed: u64) -> String {
    // A simulation of its own, which would reseed the thread in the middle of another.
    LazyLock::force(&UNDISTURBED);
    let failed = FailedSeed(seed);
    let happened = simulate(seed);
    drop(failed);
    happened
}

struct FailedSeed(u64);

impl Drop for FailedSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {0}: WINDLASS_SEEDS={0}..={0} runs the same again", self.0);
        }
    }
}
