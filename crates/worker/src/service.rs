//! The gRPC service.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tonic::{Request, Response, Status};
use windlass_proto::v1::worker_server::Worker;
use windlass_proto::v1::{
    DrainRequest, DrainResponse, GenerateTaskRequest, HealthRequest, HealthResponse, Heartbeat,
    HeartbeatsRequest, InfoRequest, InfoResponse, LoadRequest, LoadResponse, TokenizerRequest,
    TokenizerResponse, UndrainRequest, UndrainResponse,
};

use crate::answer;
use crate::convert;
use crate::engine_thread::EngineThread;
use crate::generation::Generation;
use crate::seeds::Seeds;
use crate::served_model::ServedModel;
use crate::status;

/// How long the engine may take to answer a health check.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// `windlass.v1.Worker` over one engine.
#[derive(Debug)]
pub(crate) struct WorkerService {
    engine: EngineThread,
    model: Arc<ServedModel>,
    seeds: Seeds,
}

impl WorkerService {
    pub(crate) fn new(engine: EngineThread, model: Arc<ServedModel>) -> Self {
        Self { engine, model, seeds: Seeds::default() }
    }
}

#[tonic::async_trait]
impl Worker for WorkerService {
    type GenerateStream = Generation;
    type HeartbeatsStream = Pin<Box<dyn Stream<Item = Result<Heartbeat, Status>> + Send>>;

    async fn heartbeats(
        &self,
        _request: Request<HeartbeatsRequest>,
    ) -> Result<Response<Self::HeartbeatsStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn drain(&self, _request: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn undrain(&self, _request: Request<UndrainRequest>) -> Result<Response<UndrainResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn generate(&self, task: Request<GenerateTaskRequest>) -> Result<Response<Generation>, Status> {
        let task = task.into_inner();
        if !task.fingerprint.is_empty() && task.fingerprint != self.model.fingerprint {
            let (meant, served) = (&task.fingerprint, &self.model.fingerprint);
            return Err(Status::unavailable(format!(
                "this worker serves model {served}, not {meant}: ask another"
            )));
        }
        let request = convert::request(task, &self.model, &self.seeds).map_err(status::invalid)?;
        let seed = request.sampling.seed;
        let events = self.engine.submit(request).await.map_err(status::not_done)?;
        Ok(Response::new(Generation::new(events, seed)))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(self.model.info()))
    }

    async fn load(&self, _: Request<LoadRequest>) -> Result<Response<LoadResponse>, Status> {
        let load = self.engine.load().await.map_err(status::not_done)?;
        Ok(Response::new(answer::load(&load)))
    }

    async fn health(&self, _: Request<HealthRequest>) -> Result<Response<HealthResponse>, Status> {
        self.engine.ping(HEALTH_TIMEOUT).await.map_err(status::not_done)?;
        Ok(Response::new(HealthResponse {}))
    }

    async fn tokenizer(&self, _: Request<TokenizerRequest>) -> Result<Response<TokenizerResponse>, Status> {
        Ok(Response::new(self.model.tokenizer.clone()))
    }
}
