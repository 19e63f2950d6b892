//! A worker: a loaded model, its engine, and a gRPC server for both.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};
use windlass_engine::{Engine, MonotonicClock, block_bytes};
#[cfg(not(feature = "cuda"))]
use windlass_kernels::CudaError;
#[cfg(feature = "cuda")]
use windlass_kernels::cuda::Cuda;
use windlass_kernels::{BLOCK_POSITIONS, Backend, Cpu, CpuConfig, GpuConfig};
#[cfg(feature = "cuda")]
use windlass_model::LoadError;
use windlass_model::{LoadProgress, ModelConfig, Runner, Split, split};
use windlass_proto::v1::worker_server::{SERVICE_NAME, WorkerServer};
use windlass_proto::v1::{InfoResponse, KvPlan};
use windlass_transport::{Incoming, Protocol, ServerTls};

use crate::config::{WorkerBackend, WorkerConfig};
#[cfg(feature = "cuda")]
use crate::device_plan::DevicePlan;
use crate::drain::Drain;
use crate::engine_handle::EngineHandle;
use crate::engine_thread::EngineThread;
use crate::error::WorkerError;
use crate::group::{self, Host};
use crate::memory;
use crate::served_model::{self, ServedModel};
use crate::service::{ServiceLimits, WorkerService};
use crate::simulated::{SimulatedCost, SimulatedEngine};

/// Tokenizer files can be large; clients must allow as much.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Far more than there are coordinators.
const MAX_CONNECTIONS: usize = 4096;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long what was told to end may take to do so.
const GRACE: Duration = Duration::from_secs(1);

/// One engine behind gRPC. The engine runs from the start and ends with the worker.
#[derive(Debug)]
pub struct Worker {
    engine: EngineHandle,
    model: Arc<ServedModel>,
    drain: Arc<Drain>,
    limits: ServiceLimits,
    tls: Option<ServerTls>,
    /// The other ranks, where they are processes of their own.
    group: Option<Host>,
}

impl Worker {
    /// Loads the model onto the configured backend and starts the engine. Blocks: minutes, for a large model.
    pub fn load(config: &WorkerConfig, progress: &mut dyn FnMut(LoadProgress)) -> Result<Self, WorkerError> {
        config.validate()?;
        match &config.backend {
            WorkerBackend::Simulated(cost) => Self::simulated(config, *cost),
            WorkerBackend::Cuda(gpus) => Self::load_on_gpus(config, gpus, progress),
            WorkerBackend::Cpu => {
                let cpu = CpuConfig { weights: config.weights, ..CpuConfig::new(config.threads) };
                let cpus = cpu.split(config.stages).map(|cpu| Cpu::group(cpu, config.tp)).collect();
                Self::load_on_cpus(cpus, config, progress)
            }
        }
    }

    #[cfg(feature = "cuda")]
    fn load_on_gpus(
        config: &WorkerConfig,
        gpus: &GpuConfig,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, WorkerError> {
        let model = config.model.config()?;
        let backends = Cuda::open(gpus, config.tp, config.weights)?;
        let free = backends.iter().flatten().map(|cuda| cuda.device().free_bytes());
        let devices: Vec<_> = gpus.devices.iter().copied().zip(free).collect();
        let split = Split::new(backends, &model)?;
        let capacity = config.engine.capacity(&model, config.weights.kv());
        let plans = DevicePlan::of_split(&model, config.weights, capacity, (config.tp, split.stages()))
            .map_err(LoadError::from)?;
        for (plan, (device, free)) in plans.iter().zip(&devices) {
            tracing::info!(device, ?plan, free, "device is planned");
        }
        DevicePlan::check(&plans, &devices)?;
        Self::load_split(split, config, progress)
    }

    #[cfg(not(feature = "cuda"))]
    fn load_on_gpus(
        _: &WorkerConfig,
        _: &GpuConfig,
        _: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, WorkerError> {
        Err(CudaError::NotBuilt.into())
    }

    /// `cpus` has of each stage one for each rank.
    fn load_on_cpus(
        cpus: Vec<Vec<Cpu>>,
        config: &WorkerConfig,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, WorkerError> {
        let model = config.model.config()?;
        let split = Split::new(cpus, &model)?;
        if split.stages().len() > 1 {
            let kv = config.weights.kv();
            memory::plan_stages(
                (&config.engine.capacity(&model, kv), kv),
                &model,
                config.tp,
                split.stages(),
            )?;
        }
        Self::load_split(split, config, progress)
    }

    fn load_split<B: Backend>(
        split: Split<B>,
        config: &WorkerConfig,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, WorkerError> {
        let (model, checkpoint) = (config.model.config()?, config.model.checkpoint()?);
        Self::start(config, split::runner(split.load(&checkpoint, &model, progress)?))
    }

    /// The same with all ranks but the first in processes of their own, which join at `ranks`: waits until they have, and have
    /// loaded their parts. Must be called inside a tokio runtime, where it may block.
    pub fn load_group(
        config: &WorkerConfig,
        ranks: TcpListener,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, WorkerError> {
        config.validate()?;
        let tls = server_tls(config)?;
        warn_if_open(&ranks, tls.as_ref());
        let (runner, group) = group::lead(config, (ranks, tls), progress)?;
        Ok(Self { group: Some(group), ..Self::start(config, runner)? })
    }

    /// Starts the engine on the configured model, loaded already, wherever it runs.
    pub fn new<R: Runner>(config: &WorkerConfig, runner: R) -> Result<Self, WorkerError> {
        config.validate()?;
        Self::start(config, runner)
    }

    fn start<R: Runner>(config: &WorkerConfig, runner: R) -> Result<Self, WorkerError> {
        let fingerprint = served_model::fingerprint(config, runner.arithmetic(), runner.ranks())?;
        let model = ServedModel::read(config, fingerprint, kv_plan(config, runner.config()))?;
        let engine = Engine::new(runner, config.engine.clone(), Box::new(MonotonicClock::start()))?;
        let engine = EngineThread::spawn(engine, config.inbox).map_err(WorkerError::Thread)?;
        model.log();
        Self::assemble(config, EngineHandle::Thread(engine), model)
    }

    /// A worker that computes nothing, whatever the configured backend. It reads none of the model's weights, starts no thread
    /// and takes no K/V memory, so that one process can hold a thousand.
    pub fn simulated(config: &WorkerConfig, cost: SimulatedCost) -> Result<Self, WorkerError> {
        config.validate_limits()?;
        let model = config.model.config()?;
        let fingerprint = served_model::simulated_fingerprint(&model);
        let kv = kv_plan(config, &model);
        let blocks = kv.blocks as usize;
        let served = ServedModel::read(config, fingerprint.clone(), kv)?;
        tracing::warn!(fingerprint, "simulated: answers are drawn, not computed");
        let engine = SimulatedEngine::new(model, config.engine.clone(), cost, fingerprint, blocks);
        Self::assemble(config, EngineHandle::Simulated(engine), served)
    }

    fn assemble(
        config: &WorkerConfig,
        engine: EngineHandle,
        model: ServedModel,
    ) -> Result<Self, WorkerError> {
        let tls = server_tls(config)?;
        let WorkerConfig { drain_deadline, stuck_after, .. } = *config;
        let limits = ServiceLimits { drain_deadline, stuck_after };
        Ok(Self { engine, model: Arc::new(model), drain: Arc::default(), limits, tls, group: None })
    }

    /// What it says of itself to coordinators.
    pub fn info(&self) -> InfoResponse {
        self.model.info()
    }

    /// Serves on `listener` until `shutdown` resolves. Then it drains: it refuses new requests, lets running generations go on
    /// until the drain deadline, hands over what is left, and returns, at once when nothing runs.
    ///
    /// An engine that panics does not end the server: it turns health red and refuses requests; the shutdown then returns
    /// [`WorkerError::EngineStopped`].
    pub async fn serve(
        mut self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), WorkerError> {
        let tls = self.tls.take();
        warn_if_open(&listener, tls.as_ref());
        self.serve_with_incoming(Incoming::new(listener, tls, MAX_CONNECTIONS), shutdown).await
    }

    /// The same over connections of any kind.
    pub async fn serve_with_incoming<C, E>(
        self,
        incoming: impl Stream<Item = Result<C, E>>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), WorkerError>
    where
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { engine, model, drain, limits, tls: _, group } = self;
        let (health, health_server) = health_reporter();
        set_health(&health, ServingStatus::Serving).await;
        let service = WorkerService::new(engine.clone(), model, Arc::clone(&drain), limits);
        let service = WorkerServer::new(service)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_service(health_server)
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, drain.watch().ended());
        tokio::pin!(server);
        tokio::select! {
            // In this order every time, so that a simulation can be repeated.
            biased;
            result = &mut server => return Ok(result?),
            () = fail_with(group.as_ref(), &engine) => unreachable!("it ends with what it waits beside"),
            () = live(&engine, &drain, health, shutdown, limits.drain_deadline) => {}
        }
        let has_crashed = engine.has_stopped();
        // An engine that is stuck, and a connection whose reader does not read, end with the process.
        let _ = timeout(GRACE, engine.stop()).await;
        if let Some(group) = group {
            group.end(has_crashed).await;
        }
        if let Ok(result) = timeout(GRACE, server).await {
            result?;
        }
        if has_crashed { Err(WorkerError::EngineStopped) } else { Ok(()) }
    }
}

/// The K/V memory that the limits ask for.
fn kv_plan(config: &WorkerConfig, model: &ModelConfig) -> KvPlan {
    KvPlan {
        blocks: config.engine.capacity(model, config.weights.kv()).blocks as u32,
        block_positions: BLOCK_POSITIONS as u32,
        block_bytes: block_bytes(model, config.weights.kv()) as u64,
    }
}

/// Has the engine fail when a rank is lost, even while it has nothing to do. Never returns.
async fn fail_with(group: Option<&Host>, engine: &EngineHandle) {
    if let Some(group) = group {
        engine.fail(group.lost().await).await;
    }
    std::future::pending().await
}

fn server_tls(config: &WorkerConfig) -> Result<Option<ServerTls>, WorkerError> {
    Ok(config.tls.clone().map(|files| ServerTls::load(files, Protocol::Http2)).transpose()?)
}

/// Lives until `shutdown`, drains, and shows by its health how it is.
async fn live(
    engine: &EngineHandle,
    drain: &Drain,
    health: HealthReporter,
    shutdown: impl Future<Output = ()>,
    drain_deadline: Duration,
) {
    tokio::pin!(shutdown);
    tokio::select! {
        () = &mut shutdown => {}
        () = engine.stopped() => {
            set_health(&health, ServingStatus::NotServing).await;
            shutdown.await;
        }
    }
    tracing::info!(deadline = ?drain_deadline, "shutting down: running generations may finish until the deadline");
    set_health(&health, ServingStatus::NotServing).await;
    drain.end(drain_deadline, GRACE).await;
    close_health(health).await;
}

/// Says so where others than coordinators may ask.
fn warn_if_open(listener: &TcpListener, tls: Option<&ServerTls>) {
    let beyond = listener.local_addr().ok().filter(|address| !address.ip().is_loopback());
    if let Some(address) = beyond.filter(|_| !tls.is_some_and(ServerTls::asks_clients)) {
        tracing::warn!(
            %address,
            "listening beyond this machine without tls_client_ca: everyone who reaches it may ask"
        );
    }
}

/// Sets the health of the server as a whole and of its service.
async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for service in ["", SERVICE_NAME] {
        health.set_service_status(service, status).await;
    }
}

/// Tells those who watch the health that it is over; a watch that goes on would keep the server from draining.
async fn close_health(mut health: HealthReporter) {
    for service in ["", SERVICE_NAME] {
        health.clear_service_status(service).await;
    }
}
