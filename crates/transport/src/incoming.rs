use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::connection::{Connection, Stream as ClientStream};
use crate::server_tls::ServerTls;

/// How long a client has to finish its handshake, or without TLS to say anything.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Pause after the system gave no connection, as when it is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections that clients open to a listener, each after its handshake.
///
/// A client that is slow to shake hands delays nobody else. At most as many connections exist as were allowed; further
/// clients wait in the system's queue. Dropping this closes the listener.
#[derive(Debug)]
pub struct Incoming {
    connections: mpsc::Receiver<Connection>,
    _tasks: JoinSet<()>,
}

impl Incoming {
    /// Accepts from now on. Without `tls` in plain text. Must be called inside a tokio runtime.
    pub fn new(listener: TcpListener, tls: Option<ServerTls>, max_connections: usize) -> Self {
        let tls = tls.map(Arc::new);
        let mut tasks = JoinSet::new();
        if let Some(tls) = tls.clone() {
            tasks.spawn(tls.follow_files());
        }
        let (sender, connections) = mpsc::channel(1);
        tasks.spawn(accept_all(listener, tls, max_connections, sender));
        Self { connections, _tasks: tasks }
    }

    /// The next connection.
    pub async fn accept(&mut self) -> Option<Connection> {
        self.connections.recv().await
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(context).map(|connection| connection.map(Ok))
    }
}

async fn accept_all(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    max_connections: usize,
    connections: mpsc::Sender<Connection>,
) {
    let permits = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
    let mut handshakes = JoinSet::new();
    let mut was_full = false;
    loop {
        while handshakes.try_join_next().is_some() {}
        let full = permits.available_permits() == 0;
        if full && !was_full {
            tracing::warn!(max_connections, "as many connections as allowed: further clients wait");
        }
        was_full = full;
        let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, peer)) => {
                handshakes.spawn(open(stream, peer, tls.clone(), permit, connections.clone()));
            }
            // The client was faster to leave than we to accept.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Shakes hands and hands the connection on, or logs why not.
async fn open(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<ServerTls>>,
    permit: OwnedSemaphorePermit,
    connections: mpsc::Sender<Connection>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
    }
    match timeout(HANDSHAKE_LIMIT, shake_hands(stream, tls)).await {
        // The other end is gone when the server is.
        Ok(Ok(stream)) => drop(connections.send(Connection::new(stream, permit)).await),
        // Probes of the port alone, and scanners.
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            tracing::debug!(%peer, "the client left before the handshake");
        }
        Ok(Err(error)) => tracing::warn!(%peer, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, limit = ?HANDSHAKE_LIMIT, "the client was too slow to begin"),
    }
}

async fn shake_hands(stream: TcpStream, tls: Option<Arc<ServerTls>>) -> io::Result<ClientStream> {
    match tls {
        Some(tls) => {
            let stream = TlsAcceptor::from(tls.current()).accept(stream).await?;
            Ok(ClientStream::Tls(Box::new(stream)))
        }
        None if stream.peek(&mut [0]).await? == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
        None => Ok(ClientStream::Plain(stream)),
    }
}
