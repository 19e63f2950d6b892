//! What runs on the hosts: the product's own servers.

use std::future::pending;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use object_store::memory::InMemory;
use tokio::sync::watch;
use windlass_coordinator::{Coordinator, CoordinatorConfig, Members};
use windlass_jobs::{Blobs, Jobs, JobsConfig};
use windlass_model::ModelFolder;
use windlass_store::membership::{MemberKeys, WorkerId};
use windlass_worker::{Registration, SimulatedCost, Worker, WorkerConfig, registration};

use crate::network::{PORT, SimulatedNetwork, listen};
use crate::store::RemoteStore;

/// How long a worker that is gone stays in the list, and a coordinator's jobs with it.
pub(crate) const LEASE: Duration = Duration::from_secs(5);

static WORKER: LazyLock<WorkerConfig> = LazyLock::new(|| {
    let config = WorkerConfig::new(ModelFolder::demo()).expect("the demo model is valid");
    WorkerConfig { drain_deadline: Duration::from_secs(1), ..config }
});

/// A worker in the list of its cluster, until it is told to end.
pub(crate) async fn worker(
    name: String,
    store: RemoteStore,
    mut end: watch::Receiver<bool>,
) -> turmoil::Result {
    let worker = Worker::simulated(&WORKER, SimulatedCost::default())?;
    let member = registration::member(&worker.info(), format!("{name}:{PORT}"), WORKER.engine.max_lanes);
    let (keys, id) = (MemberKeys::of("main")?, WorkerId::new(name)?);
    let registration = Registration::start(Arc::new(store), &keys, &id, member, LEASE);
    let leave = async {
        let _ = end.wait_for(|end| *end).await;
        registration.withdraw().await;
    };
    worker.serve_with_incoming(listen().await?, leave).await?;
    Ok(())
}

/// A coordinator that works on jobs, and never gives up a request for the number of workers it was lost at.
pub(crate) async fn coordinator(store: RemoteStore, objects: Arc<InMemory>, seed: u64) -> turmoil::Result {
    let config = CoordinatorConfig {
        max_migrations: u32::MAX,
        migration_patience: Duration::from_secs(60),
        ..CoordinatorConfig::new(Vec::new())
    };
    let members = Members::watch(Arc::new(store.clone()), MemberKeys::of("main")?);
    let jobs = JobsConfig { lease: LEASE, ..JobsConfig::default() };
    let jobs = Jobs::new(jobs, Arc::new(store), Blobs::of(objects));
    let coordinator = Coordinator::following(config, members)?.with_jobs(jobs);
    let coordinator = coordinator.with_connect(Arc::new(SimulatedNetwork)).with_seed(seed);
    coordinator.serve_grpc_with_incoming(listen().await?, pending()).await?;
    Ok(())
}
