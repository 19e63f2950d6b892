//! What coordinators know of workers: while there are faults, they send nothing to a worker that they know to be away; and
//! afterwards they know exactly the workers there are.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tonic::Status;
use windlass_proto::v1::cluster_client::ClusterClient;
use windlass_proto::v1::worker_client::WorkerClient;
use windlass_proto::v1::{
    DrainWorkerRequest, HeartbeatsRequest, ListWorkersRequest, UndrainWorkerRequest, WatchWorkersRequest,
    WorkerState, WorkerStatus,
};

use crate::cluster::{Cluster, FAULTS, Gone, Way, coordinator, for_seeds, worker};
use crate::requests::{REQUESTS, ask};

const COORDINATORS: usize = 2;
const WORKERS: usize = 4;
/// Leases end within 5 s, a coordinator lists anew within 3 s, and introduces a worker within a second.
const CALM: Duration = Duration::from_secs(12);

#[test]
fn nothing_is_sent_to_a_worker_known_to_be_away_and_in_the_end_all_are_known() {
    for_seeds("registry", simulate);
}

/// Clients ask, observers watch, an operator drains; in the end views are compared.
pub(crate) fn simulate(seed: u64) -> String {
    let mut cluster = Cluster::new(seed, COORDINATORS, WORKERS);
    cluster.faults.some_stay_away = true;
    for number in 0..COORDINATORS {
        cluster.client(&format!("client-{number}"), move |way| async move {
            let channel = way.coordinator(number);
            while way.is_disturbed() {
                ask(&way, &channel, way.dice.roll(REQUESTS as u64) as usize).await?;
            }
            Ok(())
        });
        cluster.client(&format!("observer-{number}"), move |way| observe(way, number));
    }
    cluster.client("operator", drain_now_and_then);
    let gone = cluster.faults.gone.clone();
    cluster.client("inspector", |way| async move {
        sleep(FAULTS + CALM).await;
        compare_views(&way, &gone).await?;
        Ok(())
    });
    cluster.run()
}

/// Watches one coordinator's view.
async fn observe(way: Way, number: usize) -> turmoil::Result {
    let mut client = ClusterClient::new(way.coordinator(number));
    let mut lists = loop {
        match client.watch_workers(WatchWorkersRequest {}).await {
            Ok(lists) => break lists.into_inner(),
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    };
    let mut known: BTreeMap<String, WorkerStatus> = BTreeMap::new();
    while way.is_disturbed() {
        let list = timeout(Duration::from_secs(2), lists.message()).await??.ok_or("the watch ended")?;
        for now in &list.workers {
            way.note(&format!("{} is {} with {} requests", now.id, now.state().as_str_name(), now.requests));
            let before = known.get(&now.id).filter(|before| is_away(before) && is_away(now));
            let requests = before.map_or(u32::MAX, |before| before.requests);
            assert!(now.requests <= requests, "{} sent a request to {}", coordinator(number), now.id);
        }
        known = list.workers.into_iter().map(|worker| (worker.id.clone(), worker)).collect();
    }
    Ok(())
}

/// A worker that is suspended is tried now and then; these are not.
fn is_away(worker: &WorkerStatus) -> bool {
    matches!(worker.state(), WorkerState::Draining | WorkerState::Unready)
}

/// Drains workers, but the first, and takes it back. That a worker cannot be told is part of the game.
async fn drain_now_and_then(way: Way) -> turmoil::Result {
    while way.is_disturbed() {
        sleep(way.dice.between_ms(100, 1500)).await;
        let mut client = ClusterClient::new(way.coordinator(way.dice.roll(COORDINATORS as u64) as usize));
        let id = worker(1 + way.dice.roll(WORKERS as u64 - 1) as usize);
        let (drains, deadline_ms) = (way.dice.roll(2) == 0, Some(way.dice.roll(2000)));
        let told = if drains {
            client.drain_worker(DrainWorkerRequest { id: id.clone(), deadline_ms }).await.map(drop)
        } else {
            client.undrain_worker(UndrainWorkerRequest { id: id.clone() }).await.map(drop)
        };
        way.note(&format!("told {id} to drain ({drains}): {}", told.is_ok()));
    }
    Ok(())
}

/// Every coordinator's view is what the workers that live say of themselves.
async fn compare_views(way: &Way, gone: &Gone) -> Result<(), Status> {
    let mut living = Vec::new();
    for number in (0..WORKERS).filter(|number| !gone.contains(&worker(*number))) {
        let mut client = WorkerClient::new(way.worker(number));
        let mut beats = client.heartbeats(HeartbeatsRequest::default()).await?.into_inner();
        let beat = beats.message().await?.expect("a heartbeat comes at once");
        let state = if beat.draining { WorkerState::Draining } else { WorkerState::Ready };
        living.push((worker(number), state));
    }
    for number in 0..COORDINATORS {
        let list = ClusterClient::new(way.coordinator(number)).list_workers(ListWorkersRequest {}).await?;
        let workers = list.into_inner().workers;
        let view: Vec<_> = workers.iter().map(|worker| (worker.id.clone(), worker.state())).collect();
        assert_eq!(view, living, "the view of {}", coordinator(number));
    }
    Ok(())
}
