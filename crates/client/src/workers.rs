//! The workers behind a coordinator, for operators.

use std::time::Duration;

use futures::stream::{Stream, StreamExt};
use windlass_proto::v1;

use crate::client::Client;
use crate::error::ClientError;

/// What a worker is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It takes requests.
    Ready,
    /// It takes no more; those that run go on.
    Draining,
    /// It cannot be used.
    Unready,
    /// It is left out for a while, after failures in a row.
    Suspended,
}

impl WorkerState {
    /// The state in one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Unready => "unready",
            Self::Suspended => "suspended",
        }
    }
}

/// A worker as a coordinator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Unique in the cluster; its address where the list of workers is fixed.
    pub id: String,
    /// `host:port`.
    pub address: String,
    /// What it is good for.
    pub state: WorkerState,
    /// Why it is not ready.
    pub reason: String,
    /// The model it serves; empty before it was reached.
    pub model: String,
    /// It computes nothing: answers of its model are drawn.
    pub simulated: bool,
    /// Its program's version; empty before it was reached.
    pub version: String,
    /// Requests of the coordinator under way there.
    pub requests: u32,
    /// Core iterations that these are still expected to take.
    pub predicted_core_iterations: u64,
    /// Requests of everyone in its engine, as it last reported.
    pub running: u32,
    /// Requests of everyone in its queue.
    pub waiting: u32,
    /// K/V blocks in use.
    pub blocks_used: u32,
    /// K/V blocks there are.
    pub blocks_total: u32,
}

impl Client {
    /// The workers, in order of their ids.
    pub async fn list_workers(&self) -> Result<Vec<Worker>, ClientError> {
        let list = self.cluster().list_workers(v1::ListWorkersRequest {}).await?.into_inner();
        Ok(workers(list))
    }

    /// The workers at once, and again whenever something changed and every heartbeat.
    pub async fn watch_workers(
        &self,
    ) -> Result<impl Stream<Item = Result<Vec<Worker>, ClientError>> + Send + use<>, ClientError> {
        let lists = self.cluster().watch_workers(v1::WatchWorkersRequest {}).await?.into_inner();
        Ok(lists.map(|list| Ok(workers(list?))))
    }

    /// Tells a worker to take no more requests, and to hand back those that still run at the deadline; absent: its own
    /// deadline.
    pub async fn drain_worker(&self, id: &str, deadline: Option<Duration>) -> Result<(), ClientError> {
        let deadline_ms = deadline.map(|deadline| u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
        self.cluster().drain_worker(v1::DrainWorkerRequest { id: id.to_owned(), deadline_ms }).await?;
        Ok(())
    }

    /// Tells a worker to take requests again.
    pub async fn undrain_worker(&self, id: &str) -> Result<(), ClientError> {
        self.cluster().undrain_worker(v1::UndrainWorkerRequest { id: id.to_owned() }).await?;
        Ok(())
    }
}

fn workers(list: v1::ListWorkersResponse) -> Vec<Worker> {
    list.workers.into_iter().map(Worker::from).collect()
}

impl From<v1::WorkerStatus> for Worker {
    fn from(status: v1::WorkerStatus) -> Self {
        let state = match status.state() {
            v1::WorkerState::Ready => WorkerState::Ready,
            v1::WorkerState::Draining => WorkerState::Draining,
            v1::WorkerState::Suspended => WorkerState::Suspended,
            v1::WorkerState::Unready | v1::WorkerState::Unspecified => WorkerState::Unready,
        };
        let load = status.load.unwrap_or_default();
        Self {
            id: status.id,
            address: status.address,
            state,
            reason: status.reason,
            model: status.model,
            simulated: status.simulated,
            version: status.version,
            requests: status.requests,
            predicted_core_iterations: status.predicted_core_iterations,
            running: load.running,
            waiting: load.waiting,
            blocks_used: load.blocks_used,
            blocks_total: load.blocks_total,
        }
    }
}
