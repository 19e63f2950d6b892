//! Who belongs to the cluster.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::monitor::monitor;
use super::{Registry, Worker, WorkerId};
use crate::error::CoordinatorError;
use crate::locks::{lock, write};

impl Registry {
    /// Takes this for the whole list of workers, by id with their addresses; to be called inside a tokio runtime.
    ///
    /// A worker that is new is introduced; one that is left out takes no new requests, its running ones go on, and it is
    /// forgotten when they are done. One that comes back at its address goes on as it was; at another it is a new one. The
    /// error is of the first address that is none; all others are taken.
    pub(crate) fn set_members(
        self: &Arc<Self>,
        members: &BTreeMap<WorkerId, String>,
    ) -> Result<(), CoordinatorError> {
        let mut failed = Ok(());
        {
            let mut workers = write(&self.workers);
            for (id, worker) in workers.iter() {
                worker.set_member(members.get(id) == Some(&worker.address));
            }
            for (id, address) in members {
                if workers.get(id).is_some_and(|worker| worker.address == *address) {
                    continue;
                }
                match self.connect.connect(address) {
                    Ok(channel) => {
                        let failures = self.settings.breaker_failures;
                        let worker = Arc::new(Worker::new(id.clone(), address.clone(), channel, failures));
                        self.watch_over(Arc::clone(&worker));
                        workers.insert(id.clone(), worker);
                    }
                    Err(error) => failed = failed.and(Err(error)),
                }
            }
        }
        self.refresh();
        failed
    }

    /// Forgets a worker that is no member and has no requests; whether it is forgotten.
    pub(super) fn forget(&self, worker: &Arc<Worker>) -> bool {
        let mut workers = write(&self.workers);
        if !worker.is_dismissed() {
            return false;
        }
        if let Entry::Occupied(known) = workers.entry(worker.id.clone())
            && Arc::ptr_eq(known.get(), worker)
        {
            known.remove();
        }
        true
    }

    fn watch_over(self: &Arc<Self>, worker: Arc<Worker>) {
        let mut monitors = lock(&self.monitors);
        while monitors.try_join_next().is_some() {}
        monitors.spawn(monitor(Arc::clone(self), worker));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{RegistrySettings, TcpConnect};
    use crate::routing::Estimate;
    use std::time::Duration;

    fn registry() -> (Arc<Registry>, crate::registry::Watch) {
        let settings = RegistrySettings {
            heartbeat_interval: Duration::from_millis(500),
            heartbeat_timeout: Duration::from_millis(1500),
            breaker_failures: 5,
            affinity_load_factor: 1.25,
            seed: 1,
        };
        Registry::new(settings, Arc::new(TcpConnect::default()))
    }

    fn members(list: &[(&str, &str)]) -> BTreeMap<WorkerId, String> {
        list.iter().map(|(id, address)| (WorkerId::new(*id), (*address).to_owned())).collect()
    }

    fn ids(registry: &Registry) -> Vec<String> {
        registry.workers().iter().map(|worker| worker.id.to_string()).collect()
    }

    async fn known(registry: &Registry, count: usize) {
        while crate::locks::read(&registry.workers).len() != count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_worker_left_out_is_forgotten_once_its_last_request_ended() {
        let (registry, _watch) = registry();
        registry.set_members(&members(&[("a", "127.0.0.1:1"), ("b", "127.0.0.1:2")])).unwrap();
        assert_eq!(ids(&registry), ["a", "b"]);
        let a = registry.worker(&WorkerId::new("a")).unwrap();
        let running = a.begin(Estimate::new(10, 1, 1.0, 1)).unwrap();
        registry.set_members(&members(&[("b", "127.0.0.1:2")])).unwrap();
        assert_eq!(ids(&registry), ["b"]);
        assert!(!registry.forget(&a), "it has a request");
        drop(running);
        known(&registry, 1).await;
    }

    #[tokio::test]
    async fn a_worker_that_comes_back_goes_on_and_one_at_another_address_is_new() {
        let (registry, _watch) = registry();
        let (home, away) = (members(&[("a", "127.0.0.1:1")]), members(&[]));
        registry.set_members(&home).unwrap();
        let a = registry.worker(&WorkerId::new("a")).unwrap();
        let running = a.begin(Estimate::new(10, 1, 1.0, 1)).unwrap();
        registry.set_members(&away).unwrap();
        registry.set_members(&home).unwrap();
        assert!(Arc::ptr_eq(&a, &registry.worker(&WorkerId::new("a")).unwrap()));
        registry.set_members(&members(&[("a", "127.0.0.1:3")])).unwrap();
        let moved = registry.worker(&WorkerId::new("a")).unwrap();
        assert!(!Arc::ptr_eq(&a, &moved) && moved.address == "127.0.0.1:3");
        drop(running);
        assert!(registry.forget(&a));
        assert_eq!(ids(&registry), ["a"], "the new one stays");
    }

    #[tokio::test]
    async fn an_address_that_is_none_keeps_nobody_else_out() {
        let (registry, _watch) = registry();
        let error = registry.set_members(&members(&[("a", "nowhere"), ("b", "127.0.0.1:2")])).unwrap_err();
        assert!(error.to_string().contains("'nowhere' is not an address"), "{error}");
        assert_eq!(ids(&registry), ["b"]);
    }
}
