//! How a worker ends.

use std::time::Duration;

use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::server::{Server, collect, config, long_task, next, within};

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
    assert_eq!(watch.message().await.unwrap(), None);
    assert_eq!(collect(stream).await.0.len(), 99);
    within(server.end).await.unwrap().unwrap();
    assert!(server.endpoint.connect().await.is_err(), "it still accepts");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_finished_by_the_deadline_is_cut_off() {
    let mut config = config();
    config.drain_deadline = Duration::from_millis(20);
    let (server, _) = Server::start_slow(&config).await;
    let mut stream = server.client().generate(long_task()).await.unwrap().into_inner();
    next(&mut stream).await;
    server.shutdown.send(()).unwrap();
    within(server.end).await.unwrap().unwrap();
    let status = loop {
        match within(stream.message()).await {
            Ok(response) => assert!(response.is_some(), "it ended as if it were finished"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Internal);
}
