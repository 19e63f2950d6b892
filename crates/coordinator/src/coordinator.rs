use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tonic::transport::Server;
use windlass_proto::v1::inference_server::InferenceServer;
use windlass_transport::{ClientTls, Incoming, Protocol, ServerTls};

use crate::config::CoordinatorConfig;
use crate::error::CoordinatorError;
use crate::generation::Generator;
use crate::http::BodyLimits;
use crate::registry::Registry;
use crate::security::{GrpcDoor, Keyring};
use crate::{grpc, http, metrics};

/// How often the metrics' distributions are drained while nobody scrapes them.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long answers have to end after their generations were aborted.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The front of a cluster: takes requests, sends them to workers, brings the answers back.
pub struct Coordinator {
    config: CoordinatorConfig,
    metrics: PrometheusHandle,
    keyring: Option<Arc<Keyring>>,
    http_tls: Option<ServerTls>,
    grpc_tls: Option<ServerTls>,
    worker_tls: Option<ClientTls>,
}

/// Ends the servers, and then the generations.
struct Switches {
    stop: watch::Sender<bool>,
    abort: watch::Sender<bool>,
}

impl Coordinator {
    /// Checks the configuration and installs the process's metrics recorder, once for all coordinators.
    pub fn new(config: CoordinatorConfig) -> Result<Self, CoordinatorError> {
        config.validate()?;
        // Before the keys, which begin counters.
        let metrics = metrics::recorder()?;
        let keyring = Keyring::load(config.api_keys_file.as_deref(), &config.api_keys)?.map(Arc::new);
        let tls = |protocol| config.tls.clone().map(|files| ServerTls::load(files, protocol)).transpose();
        let (http_tls, grpc_tls) = (tls(Protocol::Http1)?, tls(Protocol::Http2)?);
        let worker_tls = config.worker_tls.as_ref().map(ClientTls::load).transpose()?;
        Ok(Self { config, metrics, keyring, http_tls, grpc_tls, worker_tls })
    }

    /// Serves HTTP and gRPC on these listeners until `shutdown`, then ends running generations within the deadline.
    ///
    /// Serves at once: requests get an error until a worker was reached. Runs inside a tokio runtime.
    pub async fn serve(
        self,
        http: TcpListener,
        grpc: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), CoordinatorError> {
        let switches = Switches { stop: watch::Sender::new(false), abort: watch::Sender::new(false) };
        let Self { config, metrics, keyring, http_tls, grpc_tls, worker_tls } = self;
        warn_if_open(&[&http, &grpc], keyring.is_some());
        let registry = Arc::new(Registry::new(&config.workers, worker_tls.as_ref())?);
        let limit = config.max_concurrent_requests;
        let limits = config.request_limits.clone();
        let generator =
            Arc::new(Generator::new(Arc::clone(&registry), limit, limits, switches.abort.subscribe()));
        // Dropped with this future: then nobody asks the workers any more.
        let mut background = registry.monitor(config.poll_interval);
        background.spawn(upkeep(metrics.clone()));
        if let Some(keyring) = keyring.clone() {
            background.spawn(keyring.follow_file());
        }

        let stop = switches.stop.subscribe();
        let body_limits =
            BodyLimits { bytes: config.request_limits.max_body_bytes, time: config.read_timeout };
        let (registry_, generator_) = (Arc::clone(&registry), Arc::clone(&generator));
        let router = http::router(registry_, generator_, metrics, keyring.clone(), body_limits);
        let http = Incoming::new(http, http_tls, config.max_connections);
        let http = http::serve(http, router, config.read_timeout, stop.clone());
        let grpc = Incoming::new(grpc, grpc_tls, config.max_connections);
        let grpc = serve_grpc(grpc, registry, generator, keyring, body_limits.bytes, stop, &mut background)?;
        let servers = async { tokio::join!(http, grpc).1 };
        run(servers, shutdown, &switches, config.shutdown_deadline).await
    }
}

/// Runs the servers until they fail or are told to end.
async fn run(
    servers: impl Future<Output = Result<(), CoordinatorError>>,
    shutdown: impl Future<Output = ()>,
    switches: &Switches,
    deadline: Duration,
) -> Result<(), CoordinatorError> {
    tokio::pin!(servers);
    tokio::select! {
        ended = &mut servers => return ended,
        () = shutdown => {}
    }
    tracing::info!(?deadline, "shutting down: running generations may finish");
    switches.stop.send_replace(true);
    if let Ok(ended) = timeout(deadline, &mut servers).await {
        return ended;
    }
    tracing::warn!("the deadline passed: ending the running generations");
    switches.abort.send_replace(true);
    // Connections that still do not close end with the process.
    timeout(LAST_WORDS, &mut servers).await.unwrap_or(Ok(()))
}

/// Says so where everyone who reaches the machine may ask.
fn warn_if_open(listeners: &[&TcpListener], has_keys: bool) {
    for address in listeners.iter().filter_map(|listener| listener.local_addr().ok()) {
        if !has_keys && !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "listening beyond this machine without API keys: everyone who reaches it may ask; set api_keys_file"
            );
        }
    }
}

fn serve_grpc(
    incoming: Incoming,
    registry: Arc<Registry>,
    generator: Arc<Generator>,
    keyring: Option<Arc<Keyring>>,
    max_message_bytes: usize,
    stop: watch::Receiver<bool>,
    background: &mut JoinSet<()>,
) -> Result<impl Future<Output = Result<(), CoordinatorError>>, CoordinatorError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    background.spawn(grpc::follow_readiness(reporter, registry.watch_ready(), stop.clone()));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(windlass_proto::PUBLIC_DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let failed =
        |error: tonic_reflection::server::Error| CoordinatorError::Reflection { reason: error.to_string() };
    let inference = InferenceServer::new(grpc::InferenceService { registry, generator });
    let router = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .layer(GrpcDoor { keyring })
        .add_service(inference.max_decoding_message_size(max_message_bytes))
        .add_service(health)
        .add_service(reflection().build_v1().map_err(failed)?)
        .add_service(reflection().build_v1alpha().map_err(failed)?);
    Ok(async move {
        router.serve_with_incoming_shutdown(incoming, stopped(stop)).await.map_err(CoordinatorError::Grpc)
    })
}

/// Ends once `stop` turns true.
pub(crate) async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the coordinator is gone, which is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn upkeep(metrics: PrometheusHandle) {
    let mut ticks = interval(UPKEEP);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}
