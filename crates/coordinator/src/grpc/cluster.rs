use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::{Request, Response, Status};
use windlass_proto::v1::cluster_server::Cluster;
use windlass_proto::v1::{
    DrainRequest, DrainWorkerRequest, DrainWorkerResponse, ListWorkersRequest, ListWorkersResponse,
    UndrainRequest, UndrainWorkerRequest, UndrainWorkerResponse, WatchWorkersRequest, WorkerState,
    WorkerStatus,
};

use crate::registry::{self, Registry, Worker, WorkerId, reason};

/// How long a worker may take to say that it drains.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Ids that an error names, at most.
const NAMED: usize = 20;

/// The workers as this coordinator sees them.
pub(crate) struct ClusterService {
    pub(crate) registry: Arc<Registry>,
    /// Ends the watches.
    pub(crate) stop: watch::Receiver<bool>,
}

type Lists = Pin<Box<dyn Stream<Item = Result<ListWorkersResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Cluster for ClusterService {
    type WatchWorkersStream = Lists;

    async fn list_workers(
        &self,
        _request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        Ok(Response::new(list(&self.registry)))
    }

    async fn watch_workers(&self, _request: Request<WatchWorkersRequest>) -> Result<Response<Lists>, Status> {
        let registry = Arc::clone(&self.registry);
        let mut changes = registry.watch_changes();
        changes.mark_changed();
        let state = (registry, changes, self.stop.clone());
        let lists = futures::stream::unfold(state, |(registry, mut changes, mut stop)| async move {
            tokio::select! {
                // A change that comes when the time is over is told once.
                biased;
                _ = changes.changed() => {}
                () = sleep(registry.settings().heartbeat_interval) => {}
                _ = stop.wait_for(|stop| *stop) => return None,
            }
            Some((Ok(list(&registry)), (registry, changes, stop)))
        });
        Ok(Response::new(Box::pin(lists)))
    }

    async fn drain_worker(
        &self,
        request: Request<DrainWorkerRequest>,
    ) -> Result<Response<DrainWorkerResponse>, Status> {
        let DrainWorkerRequest { id, deadline_ms } = request.into_inner();
        let worker = self.worker(id)?;
        let mut client = worker.client();
        answer(&worker, client.drain(DrainRequest { deadline_ms })).await?;
        self.registry.told_to_drain(&worker, true);
        Ok(Response::new(DrainWorkerResponse {}))
    }

    async fn undrain_worker(
        &self,
        request: Request<UndrainWorkerRequest>,
    ) -> Result<Response<UndrainWorkerResponse>, Status> {
        let worker = self.worker(request.into_inner().id)?;
        let mut client = worker.client();
        answer(&worker, client.undrain(UndrainRequest {})).await?;
        self.registry.told_to_drain(&worker, false);
        Ok(Response::new(UndrainWorkerResponse {}))
    }
}

impl ClusterService {
    fn worker(&self, id: String) -> Result<Arc<Worker>, Status> {
        let id = WorkerId::new(id);
        self.registry.worker(&id).ok_or_else(|| {
            let workers = self.registry.workers();
            let mut names: Vec<_> = workers.iter().take(NAMED).map(|worker| worker.id.to_string()).collect();
            if workers.len() > NAMED {
                names.push("…".into());
            }
            let there_are = match names.as_slice() {
                [] => "there are none".to_owned(),
                names => format!("use one of {}", names.join(", ")),
            };
            Status::not_found(format!("there is no worker '{id}': {there_are}"))
        })
    }
}

async fn answer<T>(
    worker: &Worker,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<(), Status> {
    let failed = |what: &str| Status::unavailable(format!("worker '{}' was not told: {what}", worker.id));
    match timeout(ANSWER_TIMEOUT, call).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => Err(failed(&reason(&status))),
        Err(_) => Err(failed(&format!("no answer within {ANSWER_TIMEOUT:?}"))),
    }
}

fn list(registry: &Registry) -> ListWorkersResponse {
    ListWorkersResponse { workers: registry.workers().iter().map(|worker| status(worker)).collect() }
}

fn status(worker: &Worker) -> WorkerStatus {
    let state = worker.state();
    let (requests, predicted_core_iterations) = worker.under_way();
    let (model, version, simulated) = worker.model_and_version();
    WorkerStatus {
        id: worker.id.to_string(),
        address: worker.address.clone(),
        state: match &state {
            registry::WorkerState::Ready { .. } => WorkerState::Ready,
            registry::WorkerState::Draining { .. } => WorkerState::Draining,
            registry::WorkerState::Suspended { .. } => WorkerState::Suspended,
            registry::WorkerState::Unready { .. } => WorkerState::Unready,
        }
        .into(),
        reason: state.reason().to_owned(),
        model,
        version,
        load: Some(worker.load()),
        requests: u32::try_from(requests).unwrap_or(u32::MAX),
        predicted_core_iterations,
        simulated,
    }
}
