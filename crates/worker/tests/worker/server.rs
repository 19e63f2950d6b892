//! A worker on a port of its own, and ways to ask it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use windlass_engine::Draft;
use windlass_kernels::{Backend, Cpu, Faulty};
use windlass_model::{Local, ModelFolder, Network};
use windlass_proto::v1::generate_task_response::Event;
use windlass_proto::v1::worker_client::WorkerClient;
use windlass_proto::v1::{
    DepthPolicy, Finish, GenerateTaskRequest, GenerateTaskResponse, GenerationParameters, LoadRequest,
    LoadResponse, Sampling, Token, depth_policy,
};
use windlass_worker::{Worker, WorkerConfig, WorkerError};

/// `7+5-3*2=`; from left to right, modulo 10, that is 8.
pub(crate) const PROMPT: [u32; 9] = [1, 12, 15, 10, 16, 8, 17, 7, 19];
/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    pub(crate) channel: Channel,
    pub(crate) endpoint: Endpoint,
    pub(crate) shutdown: oneshot::Sender<()>,
    pub(crate) end: JoinHandle<Result<(), WorkerError>>,
}

/// What can be wrong with the device.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    pub(crate) broken: Arc<AtomicBool>,
    pub(crate) stuck: Arc<AtomicBool>,
}

pub(crate) fn config() -> WorkerConfig {
    let mut config = WorkerConfig::new(ModelFolder::demo()).unwrap();
    config.threads = 1;
    config.engine.kv_bytes = 64 << 20;
    config
}

pub(crate) fn network<B: Backend>(backend: B) -> Network<B> {
    let folder = ModelFolder::demo();
    let checkpoint = folder.checkpoint().unwrap();
    Network::load(backend, &checkpoint, &folder.config().unwrap(), &mut |_| {}).unwrap()
}

impl Server {
    pub(crate) async fn start(config: &WorkerConfig) -> Self {
        Self::of(Worker::load(config, &mut |_| {}).unwrap()).await
    }

    /// A server whose long generations take many seconds, and what breaks it.
    pub(crate) async fn start_slow(config: &WorkerConfig) -> (Self, Faults) {
        let faults = Faults::default();
        let Faults { broken, stuck } = faults.clone();
        let backend = Faulty { cpu: Cpu::new(1), broken, stuck };
        let mut config = config.clone();
        // On a device that takes its time whatever the rows, guesses would make up for it.
        config.engine.draft = Draft::Off;
        (Self::of(Worker::new(&config, Local::new(network(backend))).unwrap()).await, faults)
    }

    async fn of(worker: Worker) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, wish) = oneshot::channel::<()>();
        let end = tokio::spawn(worker.serve(listener, async { drop(wish.await) }));
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Self { channel, endpoint, shutdown, end }
    }

    pub(crate) fn client(&self) -> WorkerClient<Channel> {
        WorkerClient::new(self.channel.clone())
    }

    pub(crate) async fn load(&self) -> LoadResponse {
        self.client().load(LoadRequest {}).await.unwrap().into_inner()
    }

    /// Asks for the load until it is as wanted.
    pub(crate) async fn load_where(&self, wanted: impl Fn(&LoadResponse) -> bool) -> LoadResponse {
        let poll = async {
            loop {
                let load = self.load().await;
                if wanted(&load) {
                    return load;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        within(poll).await
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it took too long")
}

pub(crate) fn task(parameters: GenerationParameters) -> GenerateTaskRequest {
    GenerateTaskRequest {
        prompt: PROMPT.to_vec(),
        parameters: Some(parameters),
        ..GenerateTaskRequest::default()
    }
}

pub(crate) fn fixed(depth: u32) -> Option<DepthPolicy> {
    Some(DepthPolicy { policy: Some(depth_policy::Policy::Fixed(depth)) })
}

/// Greedy, and as long as the context and as deep as the model allow: about 16 000 ticks.
pub(crate) fn long_task() -> GenerateTaskRequest {
    task(GenerationParameters {
        depth: fixed(64),
        ignore_eos: true,
        sampling: Some(Sampling { temperature: Some(0.0), ..Sampling::default() }),
        ..GenerationParameters::default()
    })
}

pub(crate) async fn next(stream: &mut Streaming<GenerateTaskResponse>) -> Event {
    let response = within(stream.message()).await.unwrap();
    response.expect("the stream goes on").event.expect("no response is empty")
}

/// Reads a stream that does not come to its end; the tokens before and the status.
pub(crate) async fn cut_off(mut stream: Streaming<GenerateTaskResponse>) -> (Vec<Token>, Status) {
    let mut tokens = Vec::new();
    loop {
        match within(stream.message()).await {
            Ok(Some(GenerateTaskResponse { event: Some(Event::Token(token)) })) => tokens.push(token),
            Ok(other) => panic!("it ended as if it were finished: {other:?}"),
            Err(status) => return (tokens, status),
        }
    }
}

/// Reads a stream to its end.
pub(crate) async fn collect(mut stream: Streaming<GenerateTaskResponse>) -> (Vec<Token>, Finish) {
    let mut tokens = Vec::new();
    loop {
        match next(&mut stream).await {
            Event::Token(token) => tokens.push(token),
            Event::Finish(finish) => {
                assert_eq!(within(stream.message()).await.unwrap(), None);
                return (tokens, finish);
            }
        }
    }
}
