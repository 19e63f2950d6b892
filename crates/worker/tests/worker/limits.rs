//! Readers that are slow or gone, and queues that are full.

use std::time::Duration;

use tonic::Code;
use tonic_types::StatusExt;
use windlass_proto::v1::generate_task_response::Event;
use windlass_proto::v1::worker_client::WorkerClient;
use windlass_proto::v1::{GenerationParameters, LoadResponse};

use crate::server::{Server, collect, config, long_task, next, task, within};

fn is_idle(load: &LoadResponse) -> bool {
    (load.running, load.waiting, load.rows, load.blocks_used, load.queued_core_iterations) == (0, 0, 0, 0, 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_stream_aborts_the_request_and_frees_its_blocks() {
    let mut config = config();
    config.engine.max_lanes = 1;
    let (server, _) = Server::start_slow(&config).await;
    let mut running = server.client().generate(long_task()).await.unwrap().into_inner();
    next(&mut running).await;
    let waiting = server.client().generate(long_task()).await.unwrap().into_inner();
    let load = server.load().await;
    assert_eq!((load.running, load.waiting), (1, 1));
    assert!(load.blocks_used > 0 && load.queued_core_iterations > 0);

    drop(waiting);
    server.load_where(|load| load.waiting == 0).await;
    drop(running);
    let load = server.load_where(is_idle).await;
    assert!(load.ticks_total < 10_000, "it ran to the end: {} ticks", load.ticks_total);
    let later = server.client().generate(task(GenerationParameters::default())).await.unwrap();
    collect(later.into_inner()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_reads_nothing_delays_nobody_and_loses_nothing() {
    let server = Server::start(&config()).await;
    // With every alternative and so small a window nearly all of it stays at the worker.
    let channel = server.endpoint.clone().initial_stream_window_size(1024).connect().await.unwrap();
    let mut parameters = long_task().parameters.unwrap();
    (parameters.logprobs, parameters.max_tokens) = (Some(20), Some(200));
    let unread = WorkerClient::new(channel).generate(task(parameters)).await.unwrap().into_inner();

    let other = server.client().generate(task(GenerationParameters::default())).await.unwrap();
    within(collect(other.into_inner())).await;
    server.load_where(is_idle).await;
    let (tokens, _) = collect(unread).await;
    assert_eq!(tokens.len(), 200);
    assert!(tokens.iter().all(|token| token.top_logprobs.len() == 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_told_with_a_time_to_retry() {
    let mut config = config();
    (config.engine.max_lanes, config.engine.max_waiting) = (1, 1);
    let (server, _) = Server::start_slow(&config).await;
    let mut running = server.client().generate(long_task()).await.unwrap().into_inner();
    next(&mut running).await;
    let mut waiting = server.client().generate(long_task()).await.unwrap().into_inner();
    let status = server.client().generate(long_task()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with("the queue is full: 1 requests wait"), "{}", status.message());
    let retry = status.get_details_retry_info().unwrap().retry_delay;
    assert_eq!(retry, Some(Duration::from_secs(1)));

    drop(running);
    assert!(matches!(next(&mut waiting).await, Event::Token(_)));
}
