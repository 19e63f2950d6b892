//! Signs of life.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tonic::{Code, Streaming};
use windlass_proto::v1::{DrainRequest, Heartbeat, HeartbeatsRequest, UndrainRequest};

use crate::server::{Server, config, long_task, next, within};

async fn listen(server: &Server, interval_ms: Option<u32>) -> Streaming<Heartbeat> {
    server.client().heartbeats(HeartbeatsRequest { interval_ms }).await.unwrap().into_inner()
}

async fn beat(heartbeats: &mut Streaming<Heartbeat>) -> Heartbeat {
    within(heartbeats.message()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listener_gets_load_and_fingerprint_at_once_and_then_again_and_again() {
    let (server, _) = Server::start_slow(&config()).await;
    let info = server.client().info(windlass_proto::v1::InfoRequest {}).await.unwrap().into_inner();
    let mut listeners = [listen(&server, None).await, listen(&server, Some(1000)).await];
    for heartbeats in &mut listeners {
        let first = beat(heartbeats).await;
        assert_eq!((first.fingerprint, first.draining), (info.model.clone().unwrap().fingerprint, false));
        assert_eq!(first.load.unwrap().running, 0);
    }
    let mut stream = server.client().generate(long_task()).await.unwrap().into_inner();
    next(&mut stream).await;
    for heartbeats in &mut listeners {
        while beat(heartbeats).await.load.unwrap().running == 0 {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_is_told_without_waiting_for_the_interval() {
    let server = Server::start(&config()).await;
    let mut heartbeats = listen(&server, Some(60_000)).await;
    assert!(!beat(&mut heartbeats).await.draining);
    server.client().drain(DrainRequest::default()).await.unwrap();
    assert!(beat(&mut heartbeats).await.draining);
    server.client().undrain(UndrainRequest {}).await.unwrap();
    assert!(!beat(&mut heartbeats).await.draining);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_stuck_ends_the_heartbeats() {
    let mut config = config();
    config.stuck_after = Duration::from_secs(1);
    let (server, faults) = Server::start_slow(&config).await;
    let mut heartbeats = listen(&server, Some(20)).await;
    let mut stream = server.client().generate(long_task()).await.unwrap().into_inner();
    next(&mut stream).await;
    while beat(&mut heartbeats).await.load.is_none_or(|load| load.running == 0) {}
    faults.stuck.store(true, Ordering::Relaxed);
    let end = within(async {
        loop {
            if let Err(status) = heartbeats.message().await {
                return status;
            }
        }
    });
    let status = end.await;
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "the engine did not answer within 1 s");
    // Who asks anew is told as well, and gets heartbeats once it goes on.
    for _ in 0..3 {
        let end = within(listen(&server, Some(20)).await.message()).await.unwrap_err();
        assert_eq!(end.message(), status.message());
    }
    faults.stuck.store(false, Ordering::Relaxed);
    let goes_on = async || {
        let beat = listen(&server, Some(20)).await.message().await;
        beat.is_ok_and(|beat| beat.unwrap().load.is_some_and(|load| load.running == 1))
    };
    within(async { while !goes_on().await {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn intervals_that_make_no_sense_are_refused() {
    let server = Server::start(&config()).await;
    for interval_ms in [0, 9, 60_001] {
        let request = HeartbeatsRequest { interval_ms: Some(interval_ms) };
        let status = server.client().heartbeats(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), format!("interval_ms: {interval_ms} is out of range: use 10 to 60000"));
    }
}
