//! Connections of the HTTP front.

use std::pin::{Pin, pin};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use windlass_transport::{Connection, Incoming};

use crate::coordinator::stopped;

const NOT_HTTP_1: &[u8] =
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Serves HTTP/1.1 until `stop` turns true, then ends each connection after the answer it is giving.
///
/// A request's head must come within `read_timeout`, which is also how long a connection may lie idle.
pub(crate) async fn serve(
    mut incoming: Incoming,
    router: Router,
    read_timeout: Duration,
    stop: watch::Receiver<bool>,
) {
    let mut stopped = pin!(stopped(stop.clone()));
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(read_timeout);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            connection = incoming.accept() => match connection {
                Some(connection) => {
                    connections.spawn(converse(connection, router.clone(), builder.clone(), stop.clone()));
                }
                None => break,
            },
            Some(_) = connections.join_next() => {}
            () = &mut stopped => break,
        }
    }
    drop(incoming);
    while connections.join_next().await.is_some() {}
}

async fn converse(connection: Connection, router: Router, builder: Builder, stop: watch::Receiver<bool>) {
    let service = TowerToHyperService::new(router);
    let mut conversation = builder.serve_connection(TokioIo::new(connection), service);
    let ended = tokio::select! {
        ended = &mut conversation => Some(ended),
        () = stopped(stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut conversation).graceful_shutdown();
            (&mut conversation).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection broke");
        // Whoever speaks HTTP/2 here, such as gRPC, is told; hyper hangs up without a word.
        if error.is_parse() && error.to_string().contains("HTTP2 preface") {
            let mut connection = conversation.into_parts().io.into_inner();
            // A client that does not listen has its answer lost, and nothing else.
            let _ = connection.write_all(NOT_HTTP_1).await;
        }
    }
}
