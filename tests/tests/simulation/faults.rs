//! What goes wrong, and when it is mended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::cluster::{Cluster, FAULTS, Gone, worker};
use crate::store::Cut;

/// A host that faults may hit.
#[derive(Debug)]
struct Host {
    name: String,
    /// Cuts it off from the store.
    cut: Arc<Cut>,
    /// Tells it to end.
    end: Option<watch::Sender<bool>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// The host dies with all its connections.
    Crash(String),
    /// It is told to end, as by SIGTERM.
    End(String),
    /// What is sent between two hosts is lost.
    Partition(String, String),
    /// It arrives when the fault is over.
    Hold(String, String),
    /// The host does not reach the store.
    StoreAway(String),
}

/// The hosts, and the faults there are now.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Whether coordinators crash too.
    pub(crate) crash_coordinators: bool,
    /// Whether some of the workers that are down in the end stay so; the first comes back.
    pub(crate) some_stay_away: bool,
    pub(crate) gone: Gone,
    workers: Vec<Host>,
    coordinators: Vec<Host>,
    next: Duration,
    now: Vec<(Duration, Fault)>,
}

impl Faults {
    pub(crate) fn add_worker(&mut self, name: String, cut: Arc<Cut>, end: watch::Sender<bool>) {
        self.workers.push(Host { name, cut, end: Some(end) });
    }

    pub(crate) fn add_coordinator(&mut self, name: String, cut: Arc<Cut>) {
        self.coordinators.push(Host { name, cut, end: None });
    }

    fn host(&self, name: &str) -> &Host {
        let all = || self.workers.iter().chain(&self.coordinators);
        all().find(|host| host.name == name).expect("a host of this name")
    }
}

impl Cluster {
    /// Mends what is due, and breaks something now and then until the faults are over.
    pub(crate) fn disturb(&mut self) {
        let now = self.sim.elapsed();
        let is_over = now >= FAULTS;
        let due = |(until, _): &(Duration, Fault)| is_over || *until <= now;
        let (due, left) = std::mem::take(&mut self.faults.now).into_iter().partition(due);
        self.faults.now = left;
        let due: Vec<(Duration, Fault)> = due;
        for (_, fault) in due {
            self.mend(&fault);
        }
        if !is_over && now >= self.faults.next {
            let fault = self.draw();
            self.begin(fault);
            self.faults.next = now + self.dice.between_ms(50, 1500);
        }
    }

    fn draw(&self) -> Fault {
        let worker = self.dice.pick(&self.faults.workers).name.clone();
        let coordinator = self.dice.pick(&self.faults.coordinators).name.clone();
        match self.dice.roll(10) {
            0 if self.faults.crash_coordinators => Fault::Crash(coordinator),
            0..=2 => Fault::Crash(worker),
            3 => Fault::End(worker),
            4 | 5 => Fault::Partition(coordinator, worker),
            6 | 7 => Fault::Hold(coordinator, worker),
            8 => Fault::StoreAway(worker),
            _ => Fault::StoreAway(coordinator),
        }
    }

    /// Begins a fault, unless something else is wrong there.
    fn begin(&mut self, fault: Fault) {
        let broken: BTreeSet<_> = self.faults.now.iter().map(|(_, fault)| place(fault)).collect();
        if broken.contains(&place(&fault)) {
            return;
        }
        match &fault {
            Fault::Crash(host) => self.sim.crash(host.as_str()),
            Fault::End(host) => {
                let end = self.faults.host(host).end.as_ref().expect("only workers are told to end");
                end.send_replace(true);
            }
            Fault::Partition(one, other) => self.sim.partition(one.as_str(), other.as_str()),
            Fault::Hold(one, other) => self.sim.hold(one.as_str(), other.as_str()),
            Fault::StoreAway(host) => self.faults.host(host).cut.set(true),
        }
        let until = self.sim.elapsed() + self.dice.between_ms(20, 4000);
        self.trace.note(self.sim.elapsed(), &format!("{fault:?} until {until:?}"));
        self.faults.now.push((until, fault));
    }

    fn mend(&mut self, fault: &Fault) {
        self.trace.note(self.sim.elapsed(), &format!("{fault:?} is over"));
        let is_over = self.sim.elapsed() >= FAULTS;
        match fault {
            Fault::Crash(host) | Fault::End(host)
                if is_over && self.faults.some_stay_away && *host != worker(0) && self.dice.roll(2) == 0 =>
            {
                self.faults.gone.add(host);
            }
            Fault::Crash(host) | Fault::End(host) => self.sim.bounce(host.as_str()),
            Fault::Partition(one, other) => self.sim.repair(one.as_str(), other.as_str()),
            Fault::Hold(one, other) => self.sim.release(one.as_str(), other.as_str()),
            Fault::StoreAway(host) => self.faults.host(host).cut.set(false),
        }
    }
}

/// Where one fault at a time can be.
fn place(fault: &Fault) -> (&str, &str) {
    match fault {
        Fault::Crash(host) | Fault::End(host) => (host, ""),
        Fault::Partition(one, other) | Fault::Hold(one, other) => (one, other),
        Fault::StoreAway(host) => (host, "store"),
    }
}
