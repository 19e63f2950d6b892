//! A worker: a loaded model, its engine, and a gRPC server for both.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};
use windlass_engine::{Engine, MonotonicClock, block_bytes};
use windlass_kernels::{BLOCK_POSITIONS, Backend, Cpu, CpuConfig};
use windlass_model::{LoadProgress, Network};
use windlass_proto::v1::KvPlan;
use windlass_proto::v1::worker_server::{SERVICE_NAME, WorkerServer};
use windlass_transport::{Incoming, Protocol, ServerTls};

use crate::config::WorkerConfig;
use crate::engine_thread::EngineThread;
use crate::error::WorkerError;
use crate::served_model::ServedModel;
use crate::service::WorkerService;

/// Tokenizer files can be large; clients must allow as much.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Far more than there are coordinators.
const MAX_CONNECTIONS: usize = 4096;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long streams that were cut off may take to say so.
const CUT_OFF_GRACE: Duration = Duration::from_secs(1);

/// One engine behind gRPC. The engine's thread runs from the start and ends with the worker.
#[derive(Debug)]
pub struct Worker {
    engine: EngineThread,
    model: Arc<ServedModel>,
    drain_deadline: Duration,
    tls: Option<ServerTls>,
}

impl Worker {
    /// Loads the model onto this machine's cores and starts the engine. Blocks: minutes, for a large model.
    pub fn load(config: &WorkerConfig, progress: &mut dyn FnMut(LoadProgress)) -> Result<Self, WorkerError> {
        config.validate()?;
        let model = config.model.config()?;
        let checkpoint = config.model.checkpoint()?;
        let cpu = Cpu::with(CpuConfig { weights: config.weights, ..CpuConfig::new(config.threads) });
        Self::start(config, Network::load(cpu, &checkpoint, &model, progress)?)
    }

    /// Starts the engine on a network that was loaded from the configured model, on any backend.
    pub fn new<B: Backend>(config: &WorkerConfig, network: Network<B>) -> Result<Self, WorkerError> {
        config.validate()?;
        Self::start(config, network)
    }

    fn start<B: Backend>(config: &WorkerConfig, network: Network<B>) -> Result<Self, WorkerError> {
        let tls = config.tls.clone().map(|files| ServerTls::load(files, Protocol::Http2)).transpose()?;
        let (block_bytes, arithmetic) = (block_bytes(network.config()), network.arithmetic());
        let engine = Engine::new(network, config.engine.clone(), Box::new(MonotonicClock::start()))?;
        let kv = KvPlan {
            blocks: engine.load().blocks_total as u32,
            block_positions: BLOCK_POSITIONS as u32,
            block_bytes: block_bytes as u64,
        };
        let model = Arc::new(ServedModel::read(config, arithmetic, kv)?);
        let engine = EngineThread::spawn(engine, config.inbox).map_err(WorkerError::Thread)?;
        model.log();
        Ok(Self { engine, model, drain_deadline: config.drain_deadline, tls })
    }

    /// Serves on `listener` until `shutdown` resolves. Then it takes no new connection or call, lets running
    /// generations go on until the drain deadline, cuts off what is left and returns.
    ///
    /// An engine that panics does not end the server: it turns health red and refuses requests.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), WorkerError> {
        let Self { engine, model, drain_deadline, tls } = self;
        warn_if_open(&listener, tls.as_ref());
        let (health, health_server) = health_reporter();
        set_health(&health, ServingStatus::Serving).await;
        let service = WorkerServer::new(WorkerService::new(engine.clone(), model))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let (drain, draining) = oneshot::channel();
        let begin_drain = async {
            shutdown.await;
            tracing::info!(deadline = ?drain_deadline, "shutting down: running generations may finish");
            close_health(health.clone()).await;
            let _ = drain.send(());
        };
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_service(health_server)
            .add_service(service)
            .serve_with_incoming_shutdown(Incoming::new(listener, tls, MAX_CONNECTIONS), begin_drain);
        let deadline = async {
            let _ = draining.await;
            sleep(drain_deadline).await;
        };
        let engine_watch = async {
            engine.stopped().await;
            set_health(&health, ServingStatus::NotServing).await;
            std::future::pending::<()>().await;
        };
        tokio::pin!(server);
        tokio::select! {
            result = &mut server => return Ok(result?),
            () = deadline => {}
            () = engine_watch => {}
        }
        tracing::warn!(deadline = ?drain_deadline, "generations were not finished in time and are cut off");
        engine.stop().await;
        match timeout(CUT_OFF_GRACE, server).await {
            Ok(result) => Ok(result?),
            Err(_) => Ok(()), // Someone does not read; the connection ends with the process.
        }
    }
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
    set_health(&health, ServingStatus::NotServing).await;
    for service in ["", SERVICE_NAME] {
        health.clear_service_status(service).await;
    }
}
