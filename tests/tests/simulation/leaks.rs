//! Nothing runs on that nobody waits for: neither at workers nor in the books of coordinators.

use std::time::Duration;

use tokio::time::sleep;
use tonic::Status;
use tonic::transport::Channel;
use windlass_proto::v1::cluster_client::ClusterClient;
use windlass_proto::v1::inference_client::InferenceClient;
use windlass_proto::v1::worker_client::WorkerClient;
use windlass_proto::v1::{ListWorkersRequest, LoadRequest, LoadResponse};

use crate::cluster::{Cluster, FAULTS, Way, coordinator, for_seeds};
use crate::requests::{REQUESTS, request};

const COORDINATORS: usize = 2;
const WORKERS: usize = 3;
/// Keep-alive finds the last connection that is dead within 20 s.
const CALM: Duration = Duration::from_secs(25);

#[test]
fn nothing_runs_that_nobody_waits_for() {
    for_seeds("leaks", simulate);
}

/// Clients leave in the middle of answers; in the end it is looked at what runs.
pub(crate) fn simulate(seed: u64) -> String {
    let mut cluster = Cluster::new(seed, COORDINATORS, WORKERS);
    cluster.faults.crash_coordinators = true;
    for client in 0..4 {
        cluster.client(&format!("client-{client}"), |way| async move {
            while way.is_disturbed() {
                let channel = way.coordinator(way.dice.roll(COORDINATORS as u64) as usize);
                let (index, tokens) = (way.dice.roll(REQUESTS as u64), way.dice.roll(40));
                let left = leave_early(&way, &channel, index as usize, tokens as usize).await;
                let left = left.map_err(|status| status.code());
                way.note(&format!("left request {index} behind token {tokens}: {left:?}"));
                sleep(way.dice.between_ms(0, 100)).await;
            }
            Ok(())
        });
    }
    cluster.client("inspector", |way| async move {
        sleep(FAULTS + CALM).await;
        inspect(&way).await?;
        Ok(())
    });
    cluster.run()
}

/// Asks, and drops the answer after so many events.
async fn leave_early(way: &Way, channel: &Channel, index: usize, events: usize) -> Result<(), Status> {
    let mut stream = InferenceClient::new(channel.clone()).generate(request(index)).await?.into_inner();
    for _ in 0..events {
        let Some(response) = stream.message().await? else { break };
        way.note(&format!("request {index}: {:?}", response.event));
    }
    Ok(())
}

async fn inspect(way: &Way) -> Result<(), Status> {
    for number in 0..COORDINATORS {
        let list = ClusterClient::new(way.coordinator(number)).list_workers(ListWorkersRequest {}).await?;
        for worker in list.into_inner().workers {
            let under_way = (worker.requests, worker.predicted_core_iterations);
            assert_eq!(under_way, (0, 0), "{} counts requests at {}", coordinator(number), worker.id);
        }
    }
    for number in 0..WORKERS {
        let load = WorkerClient::new(way.worker(number)).load(LoadRequest {}).await?.into_inner();
        let LoadResponse { running, waiting, rows, blocks_used, queued_core_iterations, .. } = load;
        let left = (running, waiting, rows, blocks_used, queued_core_iterations);
        assert_eq!(left, (0, 0, 0, 0, 0), "something runs at worker {number}");
    }
    Ok(())
}
