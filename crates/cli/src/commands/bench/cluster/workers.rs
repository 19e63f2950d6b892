use std::future::pending;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use windlass_model::ModelFolder;
use windlass_worker::{SimulatedCost, Worker, WorkerConfig};

/// Simulated workers of the demo model, each on a port of its own, on a runtime of their own.
pub(super) struct Workers {
    runtime: Option<Runtime>,
    /// `host:port` of each.
    pub(super) addresses: Vec<String>,
}

impl Workers {
    /// Starts as many on so many threads. A core iteration takes `tick` there, whatever else runs.
    pub(super) async fn start(count: usize, threads: usize, tick: Duration) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .context("cannot start the workers' runtime")?;
        let mut workers = Self { runtime: Some(runtime), addresses: Vec::with_capacity(count) };
        let config = WorkerConfig::new(ModelFolder::demo())?;
        for _ in 0..count {
            let worker = Worker::simulated(&config, SimulatedCost { tick, row: Duration::ZERO })?;
            let address = workers.serve(worker).await?;
            workers.addresses.push(address);
        }
        Ok(workers)
    }

    async fn serve(&self, worker: Worker) -> Result<String> {
        let runtime = self.runtime.as_ref().context("the workers were killed")?;
        let listener = runtime.spawn(TcpListener::bind("127.0.0.1:0")).await?;
        let listener = listener.context("cannot listen for one more worker")?;
        let address = listener.local_addr()?.to_string();
        runtime.spawn(worker.serve(listener, pending()));
        Ok(address)
    }

    /// Ends them as SIGKILL would: listeners and connections close in the middle of whatever is said.
    pub(super) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // A runtime may not be waited for inside another.
        self.kill();
    }
}
