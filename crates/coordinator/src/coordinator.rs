use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use windlass_jobs::Jobs;
use windlass_proto::v1::cluster_server::ClusterServer;
use windlass_proto::v1::inference_server::InferenceServer;
use windlass_proto::v1::jobs_server::JobsServer;

use crate::admission::QueueLimits;
use crate::config::CoordinatorConfig;
use crate::error::CoordinatorError;
use crate::generation::Generator;
use crate::items::Items;
use crate::registry::{Connect, MemberMap, Members, Registry, TcpConnect, WorkerId};
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
    jobs: Option<Jobs>,
    members: Option<Members>,
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
        let metrics = metrics::recorder()?;
        Ok(Self { config, connect: Arc::new(TcpConnect), metrics, jobs: None, members })
    }

    /// Reaches workers in another way than over TCP.
    #[must_use]
    pub fn with_connect(self, connect: Arc<dyn Connect>) -> Self {
        Self { connect, ..self }
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
        self,
        http: TcpListener,
        grpc: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), CoordinatorError> {
        let switches = Switches { stop: watch::Sender::new(false), abort: watch::Sender::new(false) };
        // Dropped with this future, and the background tasks too.
        let mut background = JoinSet::new();
        let (registry, _watch) = Registry::new(self.config.registry(), self.connect);
        match &self.members {
            Some(members) => _ = background.spawn(follow_members(Arc::clone(&registry), members.view())),
            None => registry.set_members(&self.config.members())?,
        }
        let (limits, migration) = (self.config.queue(), self.config.migration());
        let generator = Generator::new(Arc::clone(&registry), limits, migration, switches.abort.subscribe());
        let generator = Arc::new(generator);
        background.spawn(upkeep(self.metrics.clone()));

        let stop = switches.stop.subscribe();
        let jobs = self.jobs.clone();
        if let Some(jobs) = self.jobs {
            // Limits of its own: items of jobs never take the place of other requests.
            let running_sequences = u32::try_from(jobs.concurrency()).unwrap_or(u32::MAX);
            let limits = QueueLimits { running_sequences, ..limits };
            let generator =
                Generator::new(Arc::clone(&registry), limits, migration, switches.abort.subscribe());
            let stop = stop.clone();
            background.spawn(async move { jobs.run(Arc::new(Items { generator }), stopped(stop)).await });
        }
        let router = http::router(Arc::clone(&registry), Arc::clone(&generator), self.metrics.clone());
        let http = serve_http(http, router, stop.clone());
        let grpc = serve_grpc(grpc, registry, generator, jobs, stop, &mut background)?;
        let servers = async { tokio::try_join!(http, grpc) };
        run(servers, shutdown, &switches, self.config.shutdown_deadline).await
    }
}

/// Runs the servers until they fail or are told to end.
async fn run(
    servers: impl Future<Output = Result<((), ()), CoordinatorError>>,
    shutdown: impl Future<Output = ()>,
    switches: &Switches,
    deadline: Duration,
) -> Result<(), CoordinatorError> {
    tokio::pin!(servers);
    tokio::select! {
        ended = &mut servers => return ended.map(|_| ()),
        () = shutdown => {}
    }
    tracing::info!(?deadline, "shutting down: running generations may finish");
    switches.stop.send_replace(true);
    if let Ok(ended) = timeout(deadline, &mut servers).await {
        return ended.map(|_| ());
    }
    tracing::warn!("the deadline passed: ending the running generations");
    switches.abort.send_replace(true);
    // Connections that still do not close end with the process.
    timeout(LAST_WORDS, &mut servers).await.unwrap_or(Ok(((), ()))).map(|_| ())
}

async fn serve_http(
    listener: TcpListener,
    router: axum::Router,
    stop: watch::Receiver<bool>,
) -> Result<(), CoordinatorError> {
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    axum::serve(listener, router).with_graceful_shutdown(stopped(stop)).await.map_err(CoordinatorError::Http)
}

fn serve_grpc(
    listener: TcpListener,
    registry: Arc<Registry>,
    generator: Arc<Generator>,
    jobs: Option<Jobs>,
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
    let jobs = grpc::JobsService { generator: Arc::clone(&generator), jobs, stop: stop.clone() };
    let router = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .add_service(InferenceServer::new(grpc::InferenceService {
            registry: Arc::clone(&registry),
            generator,
        }))
        .add_service(ClusterServer::new(grpc::ClusterService { registry, stop: stop.clone() }))
        .add_service(JobsServer::new(jobs))
        .add_service(health)
        .add_service(reflection().build_v1().map_err(failed)?)
        .add_service(reflection().build_v1alpha().map_err(failed)?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(async move {
        router.serve_with_incoming_shutdown(incoming, stopped(stop)).await.map_err(CoordinatorError::Grpc)
    })
}

async fn stopped(mut stop: watch::Receiver<bool>) {
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
