use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};
use windlass_client::Client;

use crate::process::Server;

/// How long the coordinator may take to reach its workers.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// A coordinator and its workers, each a process on loopback.
pub(super) struct Cluster {
    workers: Vec<Server>,
    coordinator: Server,
    http: String,
    grpc: String,
}

impl Cluster {
    /// Starts all processes with the demo model.
    pub(super) async fn start(workers: usize) -> Result<Self> {
        let address = ["worker", "--listen", "127.0.0.1:0", "--model", "demo", "--threads", "1"];
        // All policies are asked the same puzzles, and none is to find what another computed.
        let arguments = [&address[..], &["--prefix-cache", "false"]].concat();
        let names: Vec<String> = (1..=workers).map(|i| format!("worker {i}")).collect();
        let workers =
            futures::future::try_join_all(names.iter().map(|name| Server::start(name, &arguments))).await?;
        let addresses =
            workers.iter().map(|worker| worker.address_after("listening on ")).collect::<Result<Vec<_>>>()?;
        let addresses = addresses.join(",");
        let any = "127.0.0.1:0";
        let arguments = ["coordinator", "--http", any, "--grpc", any, "--workers", &addresses];
        let coordinator = Server::start("coordinator", &arguments).await?;
        let http = coordinator.address_after("http://")?.to_owned();
        let grpc = coordinator.address_after("grpc://")?.to_owned();
        Ok(Self { workers, coordinator, http, grpc })
    }

    /// `host:port` of the HTTP service.
    pub(super) fn http(&self) -> &str {
        &self.http
    }

    /// `host:port` of the gRPC service.
    pub(super) fn grpc(&self) -> &str {
        &self.grpc
    }

    /// A connection, once the cluster serves its model.
    pub(super) async fn client(&self) -> Result<Client> {
        let client = Client::connect(&self.grpc).await.context("cannot reach the coordinator")?;
        let deadline = Instant::now() + READY_LIMIT;
        while client.list_models().await?.is_empty() {
            if Instant::now() > deadline {
                bail!("the coordinator did not reach its workers within {} s", READY_LIMIT.as_secs());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(client)
    }

    /// Ends all processes, the coordinator first.
    pub(super) async fn stop(self) -> Result<()> {
        self.coordinator.stop().await?;
        for worker in self.workers {
            worker.stop().await?;
        }
        Ok(())
    }
}
