//! A worker that replays a script, and a coordinator in front of it, on ports of the system's choice.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::Stream;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};
use windlass_coordinator::{Coordinator, CoordinatorConfig, CoordinatorError};
use windlass_jobs::Jobs;
use windlass_proto::v1::generate_task_response::Event;
use windlass_proto::v1::worker_server::{Worker, WorkerServer};
use windlass_proto::v1::{
    CheckParametersRequest, CheckParametersResponse, DepthPolicy, DrainRequest, DrainResponse, Effort,
    Finish, FinishReason, GenerateTaskRequest, GenerateTaskResponse, HealthRequest, HealthResponse,
    Heartbeat, HeartbeatsRequest, InfoRequest, InfoResponse, LoadRequest, LoadResponse, ModelInfo, Token,
    TokenLogprob, TokenizerRequest, TokenizerResponse, UndrainRequest, UndrainResponse, Usage, depth_policy,
};
use windlass_transport::install_crypto_provider;

const TOKENIZER: &[u8] = include_bytes!("../../../../models/demo/tokenizer.json");
const TOKENIZER_CONFIG: &[u8] = include_bytes!("../../../../models/demo/tokenizer_config.json");

/// What a fake worker does with every request.
#[derive(Clone)]
pub(crate) struct Script {
    /// Token ids; the i-th token (from 0) has depth 4 + i.
    pub(crate) tokens: Vec<u32>,
    /// Pause before each token but the first.
    pub(crate) pause: Duration,
    /// Refuse with this status instead.
    pub(crate) refusal: Option<Status>,
    /// Break off after the tokens, without a finish.
    pub(crate) lost: bool,
    /// What to do with the i-th request instead, if anything.
    pub(crate) but: fn(usize) -> Otherwise,
    /// The last token is a stop token.
    pub(crate) ends_with_stop: bool,
}

/// A request that is not served as the others are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Otherwise {
    No,
    /// It waits for a lane for ever.
    Waits,
    /// It is taken, and nothing comes of it.
    Mute,
    /// It is refused, as by a full queue, after a moment.
    Refused,
    /// It breaks off after its first token that is new.
    Lost,
    /// The engine fails before any token that is new.
    Panics,
}

impl Script {
    /// The demo vocabulary has '0' at 5; only digits are spoken here.
    pub(crate) fn says(text: &str) -> Self {
        let tokens = text.bytes().map(|byte| u32::from(byte - b'0') + 5).collect();
        Self {
            tokens,
            pause: Duration::ZERO,
            refusal: None,
            lost: false,
            but: |_| Otherwise::No,
            ends_with_stop: false,
        }
    }
}

/// What a fake worker saw.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) requests: Mutex<Vec<GenerateTaskRequest>>,
    /// Streams dropped before their end.
    pub(crate) aborted: AtomicUsize,
    /// The engine lives.
    pub(crate) healthy: AtomicBool,
    /// Takes no more requests.
    pub(crate) draining: AtomicBool,
    /// Running requests are handed back.
    pub(crate) handing_over: AtomicBool,
    /// Connected, and silent: as a process that was stopped.
    pub(crate) frozen: AtomicBool,
    /// The model served, by name and fingerprint.
    pub(crate) model: Mutex<(String, String)>,
}

pub(crate) struct FakeWorker {
    pub(crate) address: String,
    pub(crate) seen: Arc<Seen>,
    /// Its own, so that dropping the worker breaks its connections too.
    runtime: Option<Runtime>,
}

impl FakeWorker {
    pub(crate) async fn start(script: Script) -> Self {
        Self::start_with(script, true).await
    }

    pub(crate) async fn start_with(script: Script, tokenizer: bool) -> Self {
        Self::serve("127.0.0.1:0", script, tokenizer).await
    }

    /// At an address that is free.
    pub(crate) async fn start_at(address: &str, script: Script) -> Self {
        Self::serve(address, script, true).await
    }

    async fn serve(address: &str, script: Script, tokenizer: bool) -> Self {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.spawn(TcpListener::bind(address.to_owned())).await.unwrap().unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let model = Mutex::new(("demo".to_owned(), "a".to_owned()));
        let seen = Arc::new(Seen { healthy: AtomicBool::new(true), model, ..Seen::default() });
        let service = Service { script, tokenizer, seen: Arc::clone(&seen) };
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = Server::builder().add_service(WorkerServer::new(service));
        runtime.spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
        Self { address, seen, runtime: Some(runtime) }
    }

    /// As after a restart with another model, which the coordinator's channel does not notice.
    pub(crate) fn turn_to(&self, name: &str, fingerprint: &str) {
        *self.seen.model.lock().unwrap() = (name.to_owned(), fingerprint.to_owned());
    }

    /// As with SIGSTOP.
    pub(crate) fn freeze(&self) {
        self.seen.frozen.store(true, Ordering::SeqCst);
    }

    pub(crate) fn thaw(&self) {
        self.seen.frozen.store(false, Ordering::SeqCst);
    }

    pub(crate) fn requests(&self) -> Vec<GenerateTaskRequest> {
        self.seen.requests.lock().unwrap().clone()
    }
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Service {
    script: Script,
    tokenizer: bool,
    seen: Arc<Seen>,
}

impl Seen {
    /// Nothing happens while the worker is frozen.
    async fn unfrozen(&self) {
        while self.frozen.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Its heart at this moment; `None` ends the beats.
    fn heartbeat(&self, name: &str) -> Option<Result<Heartbeat, Status>> {
        if !self.healthy.load(Ordering::SeqCst) {
            return Some(Err(Status::unavailable("engine is dead")));
        }
        let (served, fingerprint) = self.model.lock().unwrap().clone();
        let draining = self.draining.load(Ordering::SeqCst);
        (served == name).then(|| Ok(Heartbeat { load: Some(load()), draining, fingerprint }))
    }
}

/// Counts a stream that was dropped before its end.
struct Aborted {
    seen: Arc<Seen>,
    ended: bool,
}

impl Drop for Aborted {
    fn drop(&mut self) {
        if !self.ended {
            self.seen.aborted.fetch_add(1, Ordering::SeqCst);
        }
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<GenerateTaskResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Worker for Service {
    type GenerateStream = Responses;
    type HeartbeatsStream = Pin<Box<dyn Stream<Item = Result<Heartbeat, Status>> + Send>>;

    async fn generate(&self, request: Request<GenerateTaskRequest>) -> Result<Response<Responses>, Status> {
        let request = request.into_inner();
        let number = {
            let mut requests = self.seen.requests.lock().unwrap();
            requests.push(request.clone());
            requests.len() - 1
        };
        if request.fingerprint != self.seen.model.lock().unwrap().1 {
            return Err(Status::unavailable("another model is served here"));
        }
        if let Some(status) = &self.script.refusal {
            return Err(status.clone());
        }
        self.seen.unfrozen().await;
        if self.seen.draining.load(Ordering::SeqCst) {
            return Err(Status::unavailable("draining"));
        }
        let emitted: Vec<_> = request.emitted.iter().map(|token| (token.id, token.depth)).collect();
        let begun = emitted.len();
        let said = (0..).zip(&self.script.tokens).map(|(index, id)| (*id, 4 + index)).take(begun);
        if emitted != said.collect::<Vec<_>>() {
            return Err(Status::invalid_argument("the tokens emitted are not those of this answer"));
        }
        let mut guard = Aborted { seen: Arc::clone(&self.seen), ended: false };
        let mut script = self.script.clone();
        match (script.but)(number) {
            Otherwise::No => {}
            Otherwise::Waits => std::future::pending().await,
            Otherwise::Mute => {
                let mute = futures::stream::once(async move {
                    let _guard = guard;
                    std::future::pending().await
                });
                return Ok(Response::new(Box::pin(mute)));
            }
            Otherwise::Refused => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                guard.ended = true;
                return Err(Status::resource_exhausted("queue is full"));
            }
            Otherwise::Lost => {
                script.lost = true;
                script.tokens.truncate(begun + 1);
            }
            Otherwise::Panics => {
                guard.ended = true;
                let failed = futures::stream::iter([Err(Status::internal("the engine panicked"))]);
                return Ok(Response::new(Box::pin(failed)));
            }
        }
        let state = (begun, script, request, guard);
        let events = futures::stream::unfold(state, |(index, script, request, mut guard)| async move {
            if index > 0 {
                tokio::time::sleep(script.pause).await;
            }
            guard.seen.unfrozen().await;
            if guard.seen.handing_over.load(Ordering::SeqCst) && !guard.ended {
                guard.ended = true;
                let status = Status::unavailable("handed over");
                return Some((Err(status), (script.tokens.len(), script, request, guard)));
            }
            let item = match index.cmp(&script.tokens.len()) {
                std::cmp::Ordering::Less => {
                    let is_stop = script.ends_with_stop && index + 1 == script.tokens.len();
                    Ok(Event::Token(token(index, script.tokens[index], is_stop)))
                }
                _ if guard.ended => return None,
                _ if script.lost => {
                    guard.ended = true;
                    Err(Status::unavailable("engine died"))
                }
                _ => {
                    guard.ended = true;
                    Ok(Event::Finish(finish(&script, &request)))
                }
            };
            let item = item.map(|event| GenerateTaskResponse { event: Some(event) });
            Some((item, (index + 1, script, request, guard)))
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn check_parameters(
        &self,
        request: Request<CheckParametersRequest>,
    ) -> Result<Response<CheckParametersResponse>, Status> {
        self.seen.unfrozen().await;
        let parameters = request.into_inner().parameters.unwrap_or_default();
        if let Some(effort) = parameters.effort.filter(|effort| effort != "high") {
            let reason = format!("'{effort}' is not an effort of this model: use one of high");
            let details = ErrorDetails::with_bad_request_violation("reasoning_effort", reason);
            return Err(Status::with_error_details(Code::InvalidArgument, "", details));
        }
        Ok(Response::new(CheckParametersResponse {}))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        self.seen.unfrozen().await;
        let fixed = |depth| Some(DepthPolicy { policy: Some(depth_policy::Policy::Fixed(depth)) });
        let (name, fingerprint) = self.seen.model.lock().unwrap().clone();
        let model = ModelInfo {
            name,
            context_length: 256,
            vocabulary: 64,
            default_depth: 16,
            max_depth: 64,
            efforts: vec![Effort { name: "high".into(), depth: fixed(16) }],
            default_effort: "high".into(),
            parameters: 856_000,
            fingerprint,
            simulated: false,
        };
        Ok(Response::new(InfoResponse { model: Some(model), version: "0".into(), kv: None }))
    }

    async fn load(&self, _: Request<LoadRequest>) -> Result<Response<LoadResponse>, Status> {
        Ok(Response::new(load()))
    }

    async fn heartbeats(
        &self,
        request: Request<HeartbeatsRequest>,
    ) -> Result<Response<Self::HeartbeatsStream>, Status> {
        let pause = Duration::from_millis(request.into_inner().interval_ms.unwrap().into());
        let name = self.seen.model.lock().unwrap().0.clone();
        let state = (Arc::clone(&self.seen), Duration::ZERO);
        let beats = futures::stream::unfold(state, move |(seen, wait)| {
            let name = name.clone();
            async move {
                tokio::time::sleep(wait).await;
                seen.unfrozen().await;
                Some((seen.heartbeat(&name)?, (seen, pause)))
            }
        });
        Ok(Response::new(Box::pin(beats)))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        self.seen.draining.store(true, Ordering::SeqCst);
        let at_once = request.into_inner().deadline_ms == Some(0);
        self.seen.handing_over.store(at_once, Ordering::SeqCst);
        Ok(Response::new(DrainResponse {}))
    }

    async fn undrain(&self, _: Request<UndrainRequest>) -> Result<Response<UndrainResponse>, Status> {
        self.seen.draining.store(false, Ordering::SeqCst);
        self.seen.handing_over.store(false, Ordering::SeqCst);
        Ok(Response::new(UndrainResponse {}))
    }

    /// The engine is in a tick that takes long; only its heart says how it is.
    async fn health(&self, _: Request<HealthRequest>) -> Result<Response<HealthResponse>, Status> {
        std::future::pending().await
    }

    async fn tokenizer(&self, _: Request<TokenizerRequest>) -> Result<Response<TokenizerResponse>, Status> {
        let of = |file: &[u8]| if self.tokenizer { file.to_vec() } else { Vec::new() };
        Ok(Response::new(TokenizerResponse {
            tokenizer_json: of(TOKENIZER),
            tokenizer_config_json: of(TOKENIZER_CONFIG),
        }))
    }
}

fn load() -> LoadResponse {
    LoadResponse {
        ticks_total: 3,
        core_rows_total: 9,
        core_rows_bounds: vec![1, 8],
        core_rows_histogram: vec![1, 2, 0],
        ..LoadResponse::default()
    }
}

fn token(index: usize, id: u32, is_stop: bool) -> Token {
    let top = |id, logprob| TokenLogprob { id, logprob };
    Token {
        id,
        depth: 4 + index as u32,
        exit_value: Some(0.5),
        exit_values: vec![0.75, 0.5],
        logprob: Some(-0.25),
        top_logprobs: vec![top(id, -0.25), top(19, -2.0)],
        is_stop,
    }
}

fn finish(script: &Script, request: &GenerateTaskRequest) -> Finish {
    let count = script.tokens.len() as u32;
    let depths: u32 = (0..count).map(|index| 4 + index).sum();
    let seed = request.parameters.as_ref().and_then(|p| p.sampling.as_ref()).and_then(|s| s.seed);
    Finish {
        reason: FinishReason::Length.into(),
        usage: Some(Usage {
            prompt_tokens: request.prompt.len() as u32,
            completion_tokens: count,
            prompt_core_iterations: 16 * (request.prompt.len() as u64 - 1),
            completion_core_iterations: depths.into(),
            completion_core_iterations_limit: u64::from(16 * count),
        }),
        seed: seed.unwrap(),
    }
}

/// A coordinator that runs until it is dropped or told to stop.
pub(crate) struct Front {
    pub(crate) http: String,
    pub(crate) grpc: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), CoordinatorError>>,
}

impl Front {
    pub(crate) async fn start(workers: Vec<String>) -> Self {
        Self::start_with(workers, |_| {}).await
    }

    pub(crate) async fn start_with(
        workers: Vec<String>,
        change: impl FnOnce(&mut CoordinatorConfig),
    ) -> Self {
        let mut config = CoordinatorConfig::new(workers);
        config.heartbeat_interval = Duration::from_millis(50);
        change(&mut config);
        Self::serve(Coordinator::new(config).unwrap()).await
    }

    /// One that keeps jobs.
    pub(crate) async fn start_keeping(workers: Vec<String>, jobs: Jobs) -> Self {
        Self::start_keeping_with(CoordinatorConfig::new(workers), jobs).await
    }

    pub(crate) async fn start_keeping_with(config: CoordinatorConfig, jobs: Jobs) -> Self {
        Self::serve(Coordinator::new(config).unwrap().with_jobs(jobs)).await
    }

    async fn serve(coordinator: Coordinator) -> Self {
        // For HTTP clients that ask it.
        install_crypto_provider();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (http_address, grpc_address) = (http.local_addr().unwrap(), grpc.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(coordinator.serve(http, grpc, async move {
            let _ = stopped.await;
        }));
        Self {
            http: format!("http://{http_address}"),
            grpc: grpc_address.to_string(),
            stop: Some(stop),
            task,
        }
    }

    /// In front of these workers, all of them known.
    pub(crate) async fn ready(workers: &[&FakeWorker]) -> Self {
        let front = Self::start(workers.iter().map(|worker| worker.address.clone()).collect()).await;
        front.wait_for_workers(workers.len()).await;
        front
    }

    pub(crate) async fn wait_for_workers(&self, count: usize) {
        let line = format!("windlass_workers{{state=\"ready\"}} {count}\n");
        eventually(|| async { self.get("/metrics").await.1.contains(&line) }).await;
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("{}{path}", self.http)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub(crate) async fn send(&self, path: &str, body: &Value) -> reqwest::Response {
        reqwest::Client::new().post(format!("{}{path}", self.http)).json(body).send().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.send(path, body).await;
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// The data of every server-sent event.
    pub(crate) async fn events(&self, path: &str, body: &Value) -> Vec<String> {
        let response = self.send(path, body).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let text = response.text().await.unwrap();
        text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap().to_owned()).collect()
    }

    /// Ends it; what `serve` returned.
    pub(crate) async fn stop(mut self) -> Result<(), CoordinatorError> {
        self.stop.take().unwrap().send(()).unwrap();
        (&mut self.task).await.unwrap()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until the condition holds, at most ten seconds.
pub(crate) async fn eventually<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    for _ in 0..500 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the condition never held");
}
