use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};
use windlass_client::{Client, WorkerState};

use super::clients::Clients;
use super::workers::Workers;
use crate::process::Server;

/// How long the coordinator may take to reach its workers.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// A coordinator, a process of its own, with simulated workers in this one.
pub(super) struct Cluster {
    coordinator: Server,
    /// Its process.
    pub(super) process: u32,
    /// A tenth of the workers, the last ones.
    pub(super) doomed: Workers,
    _others: Workers,
    pub(super) clients: Clients,
    pub(super) ready_after: Duration,
}

impl Cluster {
    /// Starts it, and waits until all workers are ready. `requests`: as many run at once.
    pub(super) async fn start(workers: usize, requests: usize, tick: Duration) -> Result<Self> {
        let threads = available_parallelism().map_or(1, NonZero::get);
        let others = Workers::start(workers - workers / 10, threads, tick).await?;
        let doomed = Workers::start(workers / 10, 1, tick).await?;
        let addresses = [others.addresses.as_slice(), &doomed.addresses].concat();
        let began = Instant::now();
        let (list, requests, any) = (addresses.join(","), requests.to_string(), "127.0.0.1:0");
        let arguments = ["coordinator", "--http", any, "--grpc", any, "--workers", &list];
        let limit = ["--max-concurrent-requests", &requests];
        let coordinator = Server::start("coordinator", &[&arguments[..], &limit].concat()).await?;
        let process = coordinator.process().context("the coordinator ended")?;
        let grpc = coordinator.address_after("grpc://")?;
        ready(grpc, workers).await?;
        let clients = Clients::new(&addresses, grpc)?;
        Ok(Self { coordinator, process, doomed, _others: others, clients, ready_after: began.elapsed() })
    }

    /// Ends the coordinator, and with it all else.
    pub(super) async fn stop(self) -> Result<()> {
        self.coordinator.stop().await
    }
}

/// Waits until so many workers are ready.
async fn ready(grpc: &str, workers: usize) -> Result<()> {
    let client = Client::connect(grpc).await.context("cannot reach the coordinator")?;
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        let listed = client.list_workers().await?;
        let ready = listed.iter().filter(|worker| worker.state == WorkerState::Ready).count();
        if ready == workers {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{ready} of {workers} workers are ready after {} s", READY_LIMIT.as_secs());
        }
        sleep(Duration::from_millis(50)).await;
    }
}
