//! How a worker ends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use windlass_proto::v1::{HeartbeatsRequest, UndrainRequest};

use crate::server::{Server, collect, config, cut_off, long_task, next, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_running_generations_finish_and_tells_those_who_watch() {
    let server = Server::start(&config()).await;
    let request = HealthCheckRequest { service: "windlass.v1.Worker".to_owned() };
    let mut watch = HealthClient::new(server.channel.clone()).watch(request).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let mut task = long_task();
    task.parameters.as_mut().unwrap().max_tokens = Some(100);
    let mut stream = server.client().generate(task).await.unwrap().into_inner();
    next(&mut stream).await;

    server.shutdown.send(()).unwrap();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(collect(stream).await.0.len(), 99);
    assert_eq!(watch.message().await.unwrap(), None);
    within(server.end).await.unwrap().unwrap();
    assert!(server.endpoint.connect().await.is_err(), "it still accepts");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_finished_by_the_deadline_is_handed_over() {
    let mut config = config();
    config.drain_deadline = Duration::from_millis(20);
    let (server, _) = Server::start_slow(&config).await;
    let mut stream = server.client().generate(long_task()).await.unwrap().into_inner();
    next(&mut stream).await;
    server.shutdown.send(()).unwrap();
    within(server.end).await.unwrap().unwrap();
    let (_, status) = cut_off(stream).await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("handed over"), "{}", status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_shuts_down_a_worker_goes_on_telling_how_it_is_and_takes_nothing() {
    let (server, _) = Server::start_slow(&config()).await;
    let mut client = server.client();
    let mut stream = client.generate(long_task()).await.unwrap().into_inner();
    next(&mut stream).await;
    let mut heartbeats = client.heartbeats(HeartbeatsRequest::default()).await.unwrap().into_inner();
    assert!(!within(heartbeats.message()).await.unwrap().unwrap().draining);
    server.shutdown.send(()).unwrap();
    while !within(heartbeats.message()).await.unwrap().unwrap().draining {}
    let refused = client.generate(long_task()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(client.undrain(UndrainRequest {}).await.unwrap_err().code(), Code::FailedPrecondition);
    next(&mut stream).await;

    // The last one that leaves ends it, long before the deadline; those who listen are told.
    drop(stream);
    let end = within(async {
        loop {
            if let Err(status) = heartbeats.message().await {
                return status;
            }
        }
    });
    assert_eq!(end.await.message(), "this worker is shutting down");
    within(server.end).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_stuck_does_not_keep_a_worker_from_ending() {
    let mut config = config();
    config.drain_deadline = Duration::from_millis(20);
    let (server, faults) = Server::start_slow(&config).await;
    let mut stream = server.client().generate(long_task()).await.unwrap().into_inner();
    next(&mut stream).await;
    faults.stuck.store(true, Ordering::Relaxed);
    server.shutdown.send(()).unwrap();
    assert_eq!(cut_off(stream).await.1.code(), Code::Unavailable);
    within(server.end).await.unwrap().unwrap();
    faults.stuck.store(false, Ordering::Relaxed);
}
