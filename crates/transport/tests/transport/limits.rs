//! Handshakes end, and connections are counted.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use windlass_transport::test_certificates::Authority;

use crate::support::{Echo, server_tls};

async fn is_answered(stream: &mut TcpStream) -> bool {
    stream.write_all(b"word").await.unwrap();
    timeout(Duration::from_millis(200), stream.read_exact(&mut [0; 4])).await.is_ok()
}

#[tokio::test]
async fn a_client_beyond_the_limit_waits_until_another_leaves() {
    let server = Echo::start(None, 1).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    assert!(is_answered(&mut first).await);
    let mut second = TcpStream::connect(server.address).await.unwrap();
    assert!(!is_answered(&mut second).await);
    drop(first);
    second.read_exact(&mut [0; 4]).await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_shake_hands_is_let_go() {
    let ours = Authority::new("ours");
    for tls in [None, Some(server_tls(&ours.issue("server", &["localhost"]), None))] {
        let server = Echo::start(tls, 1).await;
        let mut silent = TcpStream::connect(server.address).await.unwrap();
        tokio::time::pause();
        // Time moves on by itself while nothing else can happen; in steps, so that the server sees its client first.
        let mut read = None;
        for _ in 0..60 {
            read = timeout(Duration::from_secs(1), silent.read(&mut [0; 1])).await.ok();
            if read.is_some() {
                break;
            }
        }
        tokio::time::resume();
        assert!(matches!(read, Some(Ok(0) | Err(_))), "{read:?}");
    }
}
