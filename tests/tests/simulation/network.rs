//! gRPC over the simulated network.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};
use turmoil::net::{TcpListener, TcpStream};
use windlass_coordinator::{Connect, CoordinatorError};

/// Where every server of the simulation listens.
pub(crate) const PORT: u16 = 8000;

/// The connections that others open to this host.
pub(crate) async fn listen() -> io::Result<impl Stream<Item = io::Result<Connection>>> {
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT)).await?;
    Ok(unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| Connection(stream));
        Some((accepted, listener))
    }))
}

/// A channel to `host:port`. What a partition dropped is lost for good, so only keep-alive finds out that a connection is dead.
pub(crate) fn channel(address: &str) -> Channel {
    let connector = tower::service_fn(|to: Uri| async move {
        let host = to.host().unwrap_or_default().to_owned();
        TcpStream::connect((host, to.port_u16().unwrap_or(PORT))).await.map(TokioIo::new)
    });
    Endpoint::from_shared(format!("http://{address}"))
        .expect("names of hosts are addresses")
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector)
}

/// The way from coordinators to workers.
pub(crate) struct SimulatedNetwork;

impl Connect for SimulatedNetwork {
    fn connect(&self, address: &str) -> Result<Channel, CoordinatorError> {
        Ok(channel(address))
    }
}

/// A connection that a server accepted.
pub(crate) struct Connection(TcpStream);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
