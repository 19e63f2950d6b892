//! Workers that take no more requests for a while.

use tonic::{Code, Status};
use windlass_proto::v1::{
    DrainRequest, EmittedToken, GenerateTaskRequest, GenerationParameters, UndrainRequest,
};

use crate::server::{Server, collect, config, cut_off, long_task, next, task, within};

async fn drain(server: &Server, deadline_ms: Option<u64>) {
    server.client().drain(DrainRequest { deadline_ms }).await.unwrap();
}

async fn refused(server: &Server) -> Status {
    server.client().generate(long_task()).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_worker_refuses_and_lets_run_until_it_is_told_otherwise() {
    let server = Server::start(&config()).await;
    let mut running = server.client().generate(long_task()).await.unwrap().into_inner();
    next(&mut running).await;
    drain(&server, None).await;
    let status = refused(&server).await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("draining"), "{}", status.message());
    assert_eq!(collect(running).await.0.len(), 246);

    server.client().undrain(UndrainRequest {}).await.unwrap();
    let answer = server.client().generate(task(GenerationParameters::default())).await.unwrap();
    collect(answer.into_inner()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_over_goes_on_elsewhere_to_the_same_end() {
    let (server, _) = Server::start_slow(&config()).await;
    let elsewhere = Server::start(&config()).await;
    let mut task = long_task();
    let parameters = task.parameters.as_mut().unwrap();
    parameters.max_tokens = Some(40);
    parameters.sampling.as_mut().unwrap().seed = Some(1);
    let (expected, finish) =
        collect(elsewhere.client().generate(task.clone()).await.unwrap().into_inner()).await;

    let stream = server.client().generate(task.clone()).await.unwrap().into_inner();
    server.load_where(|load| load.coda_rows_total > 0).await;
    drain(&server, Some(0)).await;
    let (mut tokens, status) = cut_off(stream).await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("handed over"), "{}", status.message());
    server.load_where(|load| (load.running, load.blocks_used) == (0, 0)).await;

    let emitted = tokens.iter().map(|token| EmittedToken { id: token.id, depth: token.depth }).collect();
    let rest = elsewhere.client().generate(GenerateTaskRequest { emitted, ..task }).await.unwrap();
    let (rest, end) = within(collect(rest.into_inner())).await;
    tokens.extend(rest);
    assert_eq!((tokens, end), (expected, finish));
}
