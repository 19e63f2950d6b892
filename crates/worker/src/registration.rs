//! A worker's place in the list of its cluster.
//!
//! Registers when the store answers, and anew whenever the lease was lost; meanwhile the worker serves what it has. Knows
//! nothing of who reads the list.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use windlass_proto::v1::InfoResponse;
use windlass_store::membership::{Capacity, Member, MemberKeys, WorkerId};
use windlass_store::{Condition, Entry, LeaseKeeper, Operation, Store, StoreError, jitter};

/// The first pause after a try that failed; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a worker that ends tries to say so.
const WITHDRAWAL: Duration = Duration::from_secs(3);

/// The id of this worker belongs to another one, which lives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "worker_id '{id}' belongs to the worker at {address}, which is alive: give each worker an id of its own"
)]
pub struct IdTaken {
    /// The id.
    pub id: String,
    /// Where the other one serves.
    pub address: String,
}

/// Keeps a worker in the list of its cluster, until it is withdrawn or dropped.
#[derive(Debug)]
pub struct Registration {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
    taken: watch::Receiver<Option<IdTaken>>,
}

impl Registration {
    /// Begins to register. A worker that is gone without a word leaves the list after `time_to_live`.
    pub fn start(
        store: Arc<dyn Store>,
        keys: &MemberKeys,
        id: &WorkerId,
        member: Member,
        time_to_live: Duration,
    ) -> Self {
        let stop = watch::Sender::new(false);
        let (sender, taken) = watch::channel(None);
        let place = Place { store, key: keys.key(id), member, time_to_live };
        let (id, stopped) = (id.clone(), stop.subscribe());
        let task = tokio::spawn(async move {
            if let Err(address) = place.keep(stopped).await {
                sender.send_replace(Some(IdTaken { id: id.to_string(), address }));
            }
        });
        Self { task, stop, taken }
    }

    /// Returns if another worker has the id; else never.
    pub async fn taken(&self) -> IdTaken {
        let mut taken = self.taken.clone();
        let found = taken.wait_for(Option::is_some).await.ok().and_then(|taken| taken.clone());
        match found {
            Some(taken) => taken,
            None => std::future::pending().await,
        }
    }

    /// Leaves the list, if the store answers soon.
    pub async fn withdraw(mut self) {
        self.stop.send_replace(true);
        if timeout(WITHDRAWAL, &mut self.task).await.is_err() {
            tracing::warn!("the store does not answer: this worker leaves the list when its lease ends");
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a worker of this model and these limits says of itself; it starts now.
pub fn member(info: &InfoResponse, address: String, lanes: usize) -> Member {
    let model = info.model.clone().unwrap_or_default();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Member {
        address,
        model: model.name,
        fingerprint: model.fingerprint,
        version: info.version.clone(),
        capacity: Capacity { lanes: lanes as u64, blocks: info.kv.as_ref().map_or(0, |kv| kv.blocks).into() },
        started_ms: started.as_millis() as u64,
    }
}

/// A place in the list.
struct Place {
    store: Arc<dyn Store>,
    key: String,
    member: Member,
    time_to_live: Duration,
}

/// What came of a try to register.
enum Outcome {
    Registered(LeaseKeeper),
    Held(Entry),
}

impl Place {
    /// Registers, again and again, until told to stop; an error is the address of another worker that has the id.
    async fn keep(&self, mut stop: watch::Receiver<bool>) -> Result<(), String> {
        let mut pause = FIRST_PAUSE;
        let mut rival: Option<(Entry, Instant)> = None;
        while !*stop.borrow() {
            match self.register().await {
                Ok(Outcome::Registered(keeper)) => {
                    tracing::info!(key = self.key, address = self.member.address, "registered");
                    if !self.hold(keeper, &mut stop).await {
                        return Ok(());
                    }
                    tracing::warn!(key = self.key, "no longer registered: registering anew");
                    (pause, rival) = (FIRST_PAUSE, None);
                }
                Ok(Outcome::Held(entry)) => self.watch_rival(&mut rival, entry)?,
                Err(error) => tracing::warn!(key = self.key, %error, "cannot register yet"),
            }
            tokio::select! {
                () = sleep(pause.mul_f64(jitter())) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }

    async fn register(&self) -> Result<Outcome, StoreError> {
        let free = match self.store.get(&self.key).await? {
            None => Condition::Absent(self.key.clone()),
            // What this worker, or an earlier process at its address, left there.
            Some(entry) if self.is_own(&entry) => Condition::Unchanged(entry.key, entry.revision),
            Some(entry) => return Ok(Outcome::Held(entry)),
        };
        let keeper = LeaseKeeper::grant(Arc::clone(&self.store), self.time_to_live).await?;
        let (key, value, lease) = (self.key.clone(), self.member.to_json(), Some(keeper.lease()));
        match self.store.commit(vec![free], vec![Operation::Put { key, value, lease }]).await? {
            Some(_) => Ok(Outcome::Registered(keeper)),
            None => Err(StoreError::Unavailable { reason: "the key changed meanwhile".into() }),
        }
    }

    fn is_own(&self, entry: &Entry) -> bool {
        Member::from_json(&entry.value).is_ok_and(|member| member.address == self.member.address)
    }

    /// Holds the place until it is lost (true) or given up.
    async fn hold(&self, keeper: LeaseKeeper, stop: &mut watch::Receiver<bool>) -> bool {
        tokio::select! {
            // What is lost cannot be released.
            biased;
            () = keeper.lost() => return true,
            _ = stop.wait_for(|stop| *stop) => {}
        }
        match keeper.release().await {
            Ok(()) => tracing::info!(key = self.key, "unregistered"),
            Err(error) => tracing::warn!(key = self.key, %error, "cannot unregister: the lease will end"),
        }
        false
    }

    /// Whoever keeps the place for longer than a lease without its holder would last, lives.
    fn watch_rival(&self, rival: &mut Option<(Entry, Instant)>, entry: Entry) -> Result<(), String> {
        let address = match Member::from_json(&entry.value) {
            Ok(member) => member.address,
            Err(error) => format!("an unknown address ({error})"),
        };
        match rival {
            Some((known, since)) if *known == entry => {
                if since.elapsed() > 2 * self.time_to_live {
                    return Err(address);
                }
            }
            _ => {
                tracing::warn!(key = self.key, address, "another worker has this id: waiting for it to go");
                *rival = Some((entry, Instant::now()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "registration_tests.rs"]
mod tests;
