use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use windlass_jobs::Jobs;
use windlass_proto::v1::cluster_server::ClusterServer;
use windlass_proto::v1::inference_server::InferenceServer;
use windlass_proto::v1::jobs_server::JobsServer;
use windlass_transport::{ClientTls, Incoming, Protocol, ServerTls};

use crate::admission::QueueLimits;
use crate::config::CoordinatorConfig;
use crate::dispatch::MigrationSettings;
use crate::error::CoordinatorError;
use crate::generation::Generator;
use crate::http::BodyLimits;
use crate::items::Items;
use crate::random::random_u64;
use crate::registry::{Connect, MemberMap, Members, Registry, TcpConnect, WorkerId};
use crate::security::{GrpcDoor, Keyring};
use crate::{grpc, http, metrics};

/// How often the metrics' distributions are drained while nobody scrapes them.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long answers have to end after their generations were aborted.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The front of a cluster: takes requests, sends them to workers, brings the answers back.
pub struct Coordinator {
    config: CoordinatorConfig,
    connect: Arc<dyn Connect>,
    metrics: PrometheusHandle,
    keyring: Option<Arc<Keyring>>,
    http_tls: Option<ServerTls>,
    grpc_tls: Option<ServerTls>,
    jobs: Option<Jobs>,
    members: Option<Members>,
    seed: u64,
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
        Self::start(config, None)
    }

    /// The same for workers that come and go: the configuration's list is not used.
    pub fn following(config: CoordinatorConfig, members: Members) -> Result<Self, CoordinatorError> {
        config.validate_without_workers()?;
        Self::start(config, Some(members))
    }

    fn start(config: CoordinatorConfig, members: Option<Members>) -> Result<Self, CoordinatorError> {
        // Before the keys, which begin counters.
        let metrics = metrics::recorder()?;
        let keyring = Keyring::load(config.api_keys_file.as_deref(), &config.api_keys)?.map(Arc::new);
        let tls = |protocol| config.tls.clone().map(|files| ServerTls::load(files, protocol)).transpose();
        let (http_tls, grpc_tls) = (tls(Protocol::Http1)?, tls(Protocol::Http2)?);
        let tls = config.worker_tls.as_ref().map(ClientTls::load).transpose()?;
        let connect = Arc::new(TcpConnect { tls });
        Ok(Self {
            config,
            connect,
            metrics,
            keyring,
            http_tls,
            grpc_tls,
            jobs: None,
            members,
            seed: random_u64(),
        })
    }

    /// Reaches workers in another way than over TCP.
    #[must_use]
    pub fn with_connect(self, connect: Arc<dyn Connect>) -> Self {
        Self { connect, ..self }
    }

    /// Decides every draw of the routing, so that a simulation can be repeated.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Takes jobs, and works on them.
    #[must_use]
    pub fn with_jobs(self, jobs: Jobs) -> Self {
        Self { jobs: Some(jobs), ..self }
    }

    /// Serves HTTP and gRPC on these listeners until `shutdown`, then ends running generations within the deadline.
    ///
    /// Serves at once: requests get an error until a worker was reached. Runs inside a tokio runtime.
    pub async fn serve(
        mut self,
        http: TcpListener,
        grpc: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), CoordinatorError> {
        warn_if_open(&[&http, &grpc], self.keyring.is_some());
        let http = Incoming::new(http, self.http_tls.take(), self.config.max_connections);
        let grpc = Incoming::new(grpc, self.grpc_tls.take(), self.config.max_connections);
        self.serve_fronts(Some(http), grpc, shutdown).await
    }

    /// Serves gRPC alone, over connections of any kind.
    pub async fn serve_grpc_with_incoming<C, E>(
        self,
        incoming: impl Stream<Item = Result<C, E>>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), CoordinatorError>
    where
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.serve_fronts(None, incoming, shutdown).await
    }

    async fn serve_fronts<C, E>(
        self,
        http: Option<Incoming>,
        grpc: impl Stream<Item = Result<C, E>>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), CoordinatorError>
    where
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let switches = Switches { stop: watch::Sender::new(false), abort: watch::Sender::new(false) };
        let Self { config, connect, metrics, keyring, jobs, members, seed, .. } = self;
        // Dropped with this future, and the background tasks too.
        let mut background = JoinSet::new();
        let (registry, _watch) = Registry::new(config.registry(seed), connect);
        match &members {
            Some(members) => _ = background.spawn(follow_members(Arc::clone(&registry), members.view())),
            None => registry.set_members(&config.members())?,
        }
        let new_generator = |limits, migration| {
            let requests = config.request_limits.clone();
            Generator::new(Arc::clone(&registry), limits, migration, requests, switches.abort.subscribe())
        };
        let generator = Arc::new(new_generator(config.queue(), config.migration()));
        background.spawn(upkeep(metrics.clone()));
        if let Some(keyring) = keyring.clone() {
            background.spawn(keyring.follow_file());
        }

        let stop = switches.stop.subscribe();
        if let Some(jobs) = jobs.clone() {
            // Limits of its own: items of jobs never take the place of other requests, nor a second worker.
            let running_sequences = u32::try_from(jobs.concurrency()).unwrap_or(u32::MAX);
            let limits = QueueLimits { running_sequences, has_metrics: false, ..config.queue() };
            let migration = MigrationSettings { hedge_after: None, ..config.migration() };
            let generator = new_generator(limits, migration);
            let stop = stop.clone();
            background.spawn(async move { jobs.run(Arc::new(Items { generator }), stopped(stop)).await });
        }
        let body_limits =
            BodyLimits { bytes: config.request_limits.max_body_bytes, time: config.read_timeout };
        let services = Services { registry, generator, jobs, max_message_bytes: body_limits.bytes };
        let (registry, generator) = (Arc::clone(&services.registry), Arc::clone(&services.generator));
        let router = http::router(registry, generator, metrics, keyring.clone(), body_limits);
        let http_stop = stop.clone();
        let http = async move {
            if let Some(http) = http {
                http::serve(http, router, config.read_timeout, http_stop).await;
            }
        };
        let grpc = serve_grpc(grpc, services, GrpcDoor { keyring }, stop, &mut background)?;
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

/// What the gRPC front serves from.
struct Services {
    registry: Arc<Registry>,
    generator: Arc<Generator>,
    jobs: Option<Jobs>,
    max_message_bytes: usize,
}

fn serve_grpc<C, E>(
    incoming: impl Stream<Item = Result<C, E>>,
    services: Services,
    door: GrpcDoor,
    stop: watch::Receiver<bool>,
    background: &mut JoinSet<()>,
) -> Result<impl Future<Output = Result<(), CoordinatorError>>, CoordinatorError>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let Services { registry, generator, jobs, max_message_bytes } = services;
    let (reporter, health) = tonic_health::server::health_reporter();
    background.spawn(grpc::follow_readiness(reporter, registry.watch_ready(), stop.clone()));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(windlass_proto::PUBLIC_DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let failed =
        |error: tonic_reflection::server::Error| CoordinatorError::Reflection { reason: error.to_string() };
    let jobs = grpc::JobsService { generator: Arc::clone(&generator), jobs, stop: stop.clone() };
    let inference =
        InferenceServer::new(grpc::InferenceService { registry: Arc::clone(&registry), generator });
    let cluster = ClusterServer::new(grpc::ClusterService { registry, stop: stop.clone() });
    let router = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .layer(door)
        .add_service(inference.max_decoding_message_size(max_message_bytes))
        .add_service(cluster)
        .add_service(JobsServer::new(jobs).max_decoding_message_size(max_message_bytes))
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

/// Keeps the registry's workers those of the list.
async fn follow_members(registry: Arc<Registry>, mut view: watch::Receiver<MemberMap>) {
    loop {
        let members = view.borrow_and_update().clone();
        let addresses =
            members.into_iter().map(|(id, member)| (WorkerId::new(id.as_str()), member.address)).collect();
        if let Err(error) = registry.set_members(&addresses) {
            tracing::warn!(%error, "a worker of the list cannot be reached");
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}

async fn upkeep(metrics: PrometheusHandle) {
    let mut ticks = interval(UPKEEP);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}
