//! What a panic on the engine's thread does to everyone else.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use windlass_proto::v1::{HealthRequest, HeartbeatsRequest, InfoRequest, LoadRequest};
use windlass_worker::WorkerError;

use crate::server::{Server, config, cut_off, long_task, next, within};

/// What grpc.health says of the server as a whole and of its service.
async fn health(server: &Server) -> [ServingStatus; 2] {
    let mut client = HealthClient::new(server.channel.clone());
    let mut statuses = [ServingStatus::Unknown; 2];
    for (status, service) in statuses.iter_mut().zip(["", "windlass.v1.Worker"]) {
        let request = HealthCheckRequest { service: service.to_owned() };
        *status = client.check(request).await.unwrap().into_inner().status();
    }
    statuses
}

fn assert_stopped<T>(result: Result<T, Status>) {
    let Err(status) = result else { panic!("the engine is gone") };
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the engine has stopped"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_turns_health_red_ends_streams_and_refuses_requests() {
    let mut config = config();
    config.engine.kv_bytes = 128 << 20; // Room for all streams at once.
    let (server, faults) = Server::start_slow(&config).await;
    let mut client = server.client();

    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = client.generate(long_task()).await.unwrap().into_inner();
        next(&mut stream).await;
        streams.push(stream);
    }
    client.health(HealthRequest {}).await.unwrap();
    assert_eq!(health(&server).await, [ServingStatus::Serving; 2]);

    let mut heartbeats = client.heartbeats(HeartbeatsRequest::default()).await.unwrap().into_inner();
    heartbeats.message().await.unwrap().unwrap();
    faults.broken.store(true, Ordering::Relaxed);
    for stream in streams {
        let (_, end) = cut_off(stream).await;
        assert_eq!(end.code(), Code::Internal);
        assert_eq!(end.message(), "the engine has stopped before the generation was finished");
    }
    assert_stopped(
        within(async {
            while heartbeats.message().await?.is_some() {}
            Ok(())
        })
        .await,
    );
    assert_stopped(client.health(HealthRequest {}).await);
    assert_stopped(client.load(LoadRequest {}).await);
    assert_stopped(client.generate(long_task()).await);
    client.info(InfoRequest {}).await.unwrap();
    within(async {
        while health(&server).await != [ServingStatus::NotServing; 2] {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;

    server.shutdown.send(()).unwrap();
    drop((client, server.channel));
    let end = within(server.end).await.unwrap();
    assert!(matches!(end, Err(WorkerError::EngineStopped)), "{end:?}");
}
