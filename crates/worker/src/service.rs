//! The gRPC service.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tonic::{Request, Response, Status};
use windlass_proto::v1::worker_server::Worker;
use windlass_proto::v1::{
    CheckParametersRequest, CheckParametersResponse, DrainRequest, DrainResponse, GenerateTaskRequest,
    HealthRequest, HealthResponse, Heartbeat, HeartbeatsRequest, InfoRequest, InfoResponse, LoadRequest,
    LoadResponse, TokenizerRequest, TokenizerResponse, UndrainRequest, UndrainResponse,
};

use crate::answer;
use crate::convert;
use crate::drain::Drain;
use crate::engine_handle::EngineHandle;
use crate::generation::Generation;
use crate::heartbeats::{self, Heartbeats};
use crate::question::Questions;
use crate::seeds::Seeds;
use crate::served_model::ServedModel;
use crate::status;

/// How long the engine may take to answer a health check.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// `windlass.v1.Worker` over one engine.
#[derive(Debug)]
pub(crate) struct WorkerService {
    engine: EngineHandle,
    questions: Arc<Questions>,
    model: Arc<ServedModel>,
    drain: Arc<Drain>,
    limits: ServiceLimits,
    seeds: Seeds,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServiceLimits {
    /// Running generations, once the worker drains.
    pub(crate) drain_deadline: Duration,
    /// The engine, to answer between two heartbeats.
    pub(crate) stuck_after: Duration,
}

impl WorkerService {
    pub(crate) fn new(
        engine: EngineHandle,
        model: Arc<ServedModel>,
        drain: Arc<Drain>,
        limits: ServiceLimits,
    ) -> Self {
        let questions = Arc::new(Questions::to(engine.clone()));
        Self { engine, questions, model, drain, limits, seeds: Seeds::default() }
    }
}

#[tonic::async_trait]
impl Worker for WorkerService {
    type GenerateStream = Generation;
    type HeartbeatsStream = Pin<Box<dyn Stream<Item = Result<Heartbeat, Status>> + Send>>;

    async fn heartbeats(
        &self,
        request: Request<HeartbeatsRequest>,
    ) -> Result<Response<Self::HeartbeatsStream>, Status> {
        let heartbeats = Heartbeats {
            engine: self.engine.clone(),
            questions: Arc::clone(&self.questions),
            drain: self.drain.watch(),
            model: Arc::clone(&self.model),
            interval: heartbeats::interval(request.into_inner().interval_ms).map_err(status::invalid)?,
            stuck_after: self.limits.stuck_after,
        };
        Ok(Response::new(Box::pin(heartbeats.stream())))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        let deadline = request.into_inner().deadline_ms.map(Duration::from_millis);
        let deadline = deadline.unwrap_or(self.limits.drain_deadline);
        tracing::info!(
            ?deadline,
            "draining: no more requests are taken, running ones may finish until the deadline"
        );
        self.drain.drain(deadline);
        Ok(Response::new(DrainResponse {}))
    }

    async fn undrain(&self, _: Request<UndrainRequest>) -> Result<Response<UndrainResponse>, Status> {
        self.drain.undrain().map_err(status::shutting_down)?;
        tracing::info!("requests are taken again");
        Ok(Response::new(UndrainResponse {}))
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
        let running = self.drain.begin().map_err(status::draining)?;
        let events = self.engine.submit(request).await.map_err(status::not_done)?;
        Ok(Response::new(Generation::new(events, seed, running, self.drain.watch())))
    }

    async fn check_parameters(
        &self,
        request: Request<CheckParametersRequest>,
    ) -> Result<Response<CheckParametersResponse>, Status> {
        let CheckParametersRequest { parameters } = request.into_inner();
        // What the shortest prompt cannot have, none can.
        let shortest = GenerateTaskRequest { prompt: vec![0], parameters, ..GenerateTaskRequest::default() };
        let request = convert::request(shortest, &self.model, &self.seeds).map_err(status::invalid)?;
        request.validate(self.model.limits()).map_err(status::invalid)?;
        Ok(Response::new(CheckParametersResponse {}))
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
