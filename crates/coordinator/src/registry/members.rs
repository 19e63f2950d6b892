use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use windlass_store::membership::{Member, MemberKeys, WorkerId};
use windlass_store::{Change, Entry, Page, Store, StoreError, jitter};

use crate::metrics;

/// The first pause after the store failed; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the metrics tell how old the view is, while the store is away.
const AGE_INTERVAL: Duration = Duration::from_secs(1);

/// The workers of a cluster, by id.
pub type MemberMap = BTreeMap<WorkerId, Member>;

/// The list of a cluster's workers as a store has it, or had it last while it is away. Ends when dropped.
#[derive(Debug)]
pub struct Members {
    view: watch::Receiver<MemberMap>,
    task: JoinHandle<()>,
}

impl Members {
    /// Begins to follow the list; to be called inside a tokio runtime. It is empty until the store answers.
    pub fn watch(store: Arc<dyn Store>, keys: MemberKeys) -> Self {
        // Before the first gauge is set; an error is told to whoever makes the coordinator.
        let _ = metrics::recorder();
        let (sender, view) = watch::channel(MemberMap::new());
        let task = tokio::spawn(Follower { store, keys, view: sender, current_at: Instant::now() }.run());
        Self { view, task }
    }

    /// The list, and its changes.
    pub fn view(&self) -> watch::Receiver<MemberMap> {
        self.view.clone()
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Follower {
    store: Arc<dyn Store>,
    keys: MemberKeys,
    view: watch::Sender<MemberMap>,
    /// When the view was known to be current for the last time.
    current_at: Instant,
}

impl Follower {
    /// Lists and watches, and begins anew after every error: what was missed shows in the list.
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            metrics::registry_age(self.current_at.elapsed());
            let mut was_current = false;
            let error = self.follow(&mut was_current).await;
            if was_current {
                pause = FIRST_PAUSE;
                self.current_at = Instant::now();
            }
            metrics::registry_up(false);
            let workers = self.view.borrow().len();
            tracing::warn!(%error, workers, "the list of workers cannot be followed: the last one stays in use");
            self.pause(pause.mul_f64(jitter())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Keeps the view current until something fails.
    async fn follow(&self, is_current: &mut bool) -> StoreError {
        let prefix = self.keys.prefix();
        let listing = match self.ageing(self.store.list(prefix, Page::ALL)).await {
            Ok(listing) => listing,
            Err(error) => return error,
        };
        let mut watch = match self.ageing(self.store.watch(prefix, listing.revision)).await {
            Ok(watch) => watch,
            Err(error) => return error,
        };
        self.set(listing.entries.iter().filter_map(|entry| self.read(entry)).collect());
        *is_current = true;
        metrics::registry_up(true);
        metrics::registry_age(Duration::ZERO);
        loop {
            match watch.next().await {
                Ok(change) => self.apply(change),
                Err(error) => return error,
            }
        }
    }

    fn set(&self, members: MemberMap) {
        self.view.send_if_modified(|view| {
            let is_other = *view != members;
            *view = members;
            is_other
        });
    }

    fn apply(&self, change: Change) {
        let mut members = self.view.borrow().clone();
        match change {
            Change::Put(entry) => match self.read(&entry) {
                Some((id, member)) => members.insert(id, member),
                // Whatever it was before, it is no longer.
                None => self.keys.id(&entry.key).and_then(|id| members.remove(&id)),
            },
            Change::Deleted(key) => self.keys.id(&key).and_then(|id| members.remove(&id)),
        };
        self.set(members);
    }

    fn read(&self, entry: &Entry) -> Option<(WorkerId, Member)> {
        let ignored = |reason: String| {
            tracing::warn!(key = entry.key, reason, "an entry of the list of workers is ignored");
            None
        };
        let Some(id) = self.keys.id(&entry.key) else {
            return ignored("its key is not that of a worker".into());
        };
        match Member::from_json(&entry.value) {
            Ok(member) => Some((id, member)),
            Err(error) => ignored(error.to_string()),
        }
    }

    /// Waits, while the metrics show the view growing old.
    async fn pause(&self, pause: Duration) {
        self.ageing(sleep(pause)).await;
    }

    async fn ageing<R>(&self, work: impl Future<Output = R>) -> R {
        tokio::pin!(work);
        loop {
            match timeout_at(Instant::now() + AGE_INTERVAL, &mut work).await {
                Ok(done) => return done,
                Err(_) => metrics::registry_age(self.current_at.elapsed()),
            }
        }
    }
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
