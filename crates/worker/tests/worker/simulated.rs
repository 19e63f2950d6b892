//! Workers that compute nothing, over connections in memory and on a clock that waits for nobody.

use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::unbounded;
use futures::future::join_all;
use hyper_util::rt::TokioIo;
use tokio::io::{DuplexStream, duplex};
use tokio::time::Instant;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use windlass_proto::v1::generate_task_response::Event;
use windlass_proto::v1::worker_client::WorkerClient;
use windlass_proto::v1::{
    DrainRequest, EmittedToken, FinishReason, GenerateTaskRequest, GenerationParameters, HeartbeatsRequest,
    InfoRequest, LoadRequest, LoadResponse, Sampling, Token,
};
use windlass_worker::{SimulatedCost, Worker, WorkerConfig};

use crate::server::{PROMPT, collect, config, cut_off, fixed, next, task};

/// A core iteration takes 1 ms and, for each row, 100 us more.
const COST: SimulatedCost = SimulatedCost { tick: Duration::from_millis(1), row: Duration::from_micros(100) };

/// A simulated worker that is reached without a socket.
async fn simulated(config: &WorkerConfig, cost: SimulatedCost) -> WorkerClient<Channel> {
    let (connect, connections) = unbounded::<DuplexStream>();
    let worker = Worker::simulated(config, cost).unwrap();
    tokio::spawn(
        worker.serve_with_incoming(connections.map(Ok::<_, std::io::Error>), std::future::pending()),
    );
    let connector = tower::service_fn(move |_| {
        let (here, there) = duplex(1 << 16);
        let sent = connect.unbounded_send(there).map_err(std::io::Error::other);
        std::future::ready(sent.map(|()| TokioIo::new(here)))
    });
    let endpoint = Endpoint::from_static("http://worker");
    WorkerClient::new(endpoint.connect_with_connector(connector).await.unwrap())
}

fn hot(seed: u64, max_tokens: u32) -> GenerateTaskRequest {
    task(GenerationParameters {
        max_tokens: Some(max_tokens),
        ignore_eos: true,
        sampling: Some(Sampling { seed: Some(seed), ..Sampling::default() }),
        ..GenerationParameters::default()
    })
}

/// A hot one at a fixed depth.
fn at_depth(depth: u32, max_tokens: u32) -> GenerateTaskRequest {
    let mut task = hot(1, max_tokens);
    task.parameters.as_mut().unwrap().depth = fixed(depth);
    task
}

async fn load(client: &WorkerClient<Channel>) -> LoadResponse {
    client.clone().load(LoadRequest {}).await.unwrap().into_inner()
}

async fn assert_idle(client: &WorkerClient<Channel>) {
    let load = load(client).await;
    let left = (load.running, load.waiting, load.rows, load.blocks_used, load.queued_core_iterations);
    assert_eq!(left, (0, 0, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_the_same_at_every_simulated_worker_and_goes_on_where_it_was_cut() {
    let mut first = simulated(&config(), COST).await;
    let other = SimulatedCost { tick: Duration::ZERO, row: Duration::ZERO };
    let mut second = simulated(&config(), other).await;
    let (tokens, finish) = collect(first.generate(hot(1, 40)).await.unwrap().into_inner()).await;
    assert_eq!((tokens.len(), finish.reason()), (40, FinishReason::Length));
    // The default effort is adaptive, from 1 to 16.
    assert!(tokens.iter().all(|token| (1..=16).contains(&token.depth)) && tokens[0].depth == 16);
    assert!(tokens.iter().any(|token| token.depth < 8));
    let depths: u64 = tokens.iter().map(|token| u64::from(token.depth)).sum();
    assert_eq!(finish.usage.unwrap().completion_core_iterations, depths);

    let (different, _) = collect(first.generate(hot(2, 40)).await.unwrap().into_inner()).await;
    let ids = |tokens: &[Token]| tokens.iter().map(|token| token.id).collect::<Vec<_>>();
    assert_ne!(ids(&tokens), ids(&different));
    for cut in [0, 1, 13, 39, 40] {
        let emitted = tokens[..cut].iter().map(|token| EmittedToken { id: token.id, depth: token.depth });
        let task = GenerateTaskRequest { emitted: emitted.collect(), ..hot(1, 40) };
        let rest = collect(second.generate(task).await.unwrap().into_inner()).await;
        assert_eq!(rest, (tokens[cut..].to_vec(), finish));
    }
    assert_idle(&first).await;
    assert_idle(&second).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_takes_its_depth_times_what_a_tick_and_the_rows_cost() {
    let mut client = simulated(&config(), COST).await;
    let start = Instant::now();
    collect(client.generate(at_depth(10, 5)).await.unwrap().into_inner()).await;
    // The prompt's rows together, then four tokens alone.
    let expected = COST.tick * 10 * 5 + COST.row * 10 * (PROMPT.len() as u32 + 4);
    let taken = start.elapsed();
    assert!((expected..=expected + Duration::from_millis(2)).contains(&taken), "{taken:?}, not {expected:?}");

    // Every other one in flight slows a token down.
    let start = Instant::now();
    let streams = (0..51).map(|_| {
        let mut client = client.clone();
        async move { collect(client.generate(at_depth(10, 50)).await.unwrap().into_inner()).await }
    });
    join_all(streams).await;
    let least = (COST.tick + COST.row * 51) * 10 * 49;
    assert!(start.elapsed() >= least, "{:?}, not {least:?}", start.elapsed());
    assert_idle(&client).await;
}

#[tokio::test(start_paused = true)]
async fn lanes_blocks_and_queue_are_bounded_and_given_back() {
    let mut config = config();
    (config.engine.max_lanes, config.engine.max_waiting) = (2, 1);
    let mut client = simulated(&config, COST).await;
    let mut running = Vec::new();
    for _ in 0..2 {
        let mut stream = client.generate(at_depth(64, 200)).await.unwrap().into_inner();
        next(&mut stream).await;
        running.push(stream);
    }
    let waiting = client.generate(at_depth(64, 200)).await.unwrap().into_inner();
    assert_eq!(client.generate(hot(1, 1)).await.unwrap_err().code(), Code::ResourceExhausted);
    let full = load(&client).await;
    assert_eq!((full.running, full.waiting, full.rows), (2, 1, 2));
    assert!(full.blocks_used > 0 && full.queued_core_iterations > 0);

    running.pop();
    let (tokens, _) = collect(waiting).await;
    assert_eq!(tokens.len(), 200);
    drop(running);
    while load(&client).await.running > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_idle(&client).await;

    // What can never fit, and what nobody can know.
    config.engine.kv_bytes = 1 << 20;
    let mut small = simulated(&config, COST).await;
    let status = small.generate(at_depth(64, 200)).await.unwrap_err();
    assert!(status.code() == Code::FailedPrecondition && status.message().contains("K/V blocks"), "{status}");
    let mut task = hot(1, 1);
    task.parameters.as_mut().unwrap().logprobs = Some(0);
    let status = small.generate(task).await.unwrap_err();
    assert_eq!(status.message(), "logprobs: a simulated worker has no probabilities: leave it out");
}

#[tokio::test(start_paused = true)]
async fn a_simulated_worker_beats_drains_and_keeps_time_as_others_do() {
    let mut client = simulated(&config(), COST).await;
    let info = client.info(InfoRequest {}).await.unwrap().into_inner().model.unwrap();
    assert!(info.name == "demo" && info.fingerprint.starts_with("simulated-"), "{info:?}");
    let request = HeartbeatsRequest { interval_ms: Some(1000) };
    let mut heartbeats = client.heartbeats(request).await.unwrap().into_inner();
    let start = Instant::now();
    for _ in 0..4 {
        assert_eq!(heartbeats.message().await.unwrap().unwrap().fingerprint, info.fingerprint);
    }
    let taken = start.elapsed();
    assert!((Duration::from_secs(3)..Duration::from_millis(3010)).contains(&taken), "{taken:?}");

    let mut late = at_depth(64, 200);
    late.parameters.as_mut().unwrap().timeout_ms = Some(1000);
    let (tokens, finish) = collect(client.generate(late).await.unwrap().into_inner()).await;
    assert_eq!(finish.reason(), FinishReason::Timeout);
    assert_eq!(finish.usage.unwrap().completion_tokens as usize, tokens.len());

    let mut stream = client.generate(at_depth(64, 200)).await.unwrap().into_inner();
    assert!(matches!(next(&mut stream).await, Event::Token(_)));
    let start = Instant::now();
    client.drain(DrainRequest { deadline_ms: Some(5000) }).await.unwrap();
    let (tokens, status) = cut_off(stream).await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(tokens.len() > 50 && start.elapsed() >= Duration::from_secs(5), "{}", tokens.len());
    while !heartbeats.message().await.unwrap().unwrap().draining {}
    assert_eq!(client.generate(hot(1, 1)).await.unwrap_err().code(), Code::Unavailable);
    assert_idle(&client).await;
}

#[tokio::test(start_paused = true)]
async fn hundreds_share_one_thread() {
    let config = config();
    let clients = join_all((0..300).map(|_| simulated(&config, COST))).await;
    let answers = clients.iter().map(|client| {
        let mut client = client.clone();
        async move { collect(client.generate(hot(9, 5)).await.unwrap().into_inner()).await }
    });
    let answers = join_all(answers).await;
    assert!(answers.iter().all(|answer| answer.0.len() == 5 && *answer == answers[0]));
}
