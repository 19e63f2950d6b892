//! A server that sends back what it gets, and a client for it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tracing_subscriber::fmt::MakeWriter;
use windlass_transport::test_certificates::Pair;
use windlass_transport::{ClientTls, ClientTlsFiles, Incoming, PemFile, Protocol, ServerTls, ServerTlsFiles};

pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Echo {
    pub(crate) async fn start(tls: Option<ServerTls>, max_connections: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = Incoming::new(listener, tls, max_connections);
        let task = tokio::spawn(async move {
            while let Some(mut connection) = incoming.accept().await {
                tokio::spawn(async move {
                    let mut bytes = [0; 64];
                    while let Ok(count @ 1..) = connection.read(&mut bytes).await {
                        connection.write_all(&bytes[..count]).await.unwrap();
                    }
                });
            }
        });
        Self { address, task }
    }
}

pub(crate) fn server_tls(pair: &Pair, ca: Option<&std::path::Path>) -> ServerTls {
    let ca = ca.map(std::path::Path::to_owned);
    let files = ServerTlsFiles::from_settings(Some(pair.certificate.clone()), Some(pair.key.clone()), ca);
    ServerTls::load(files.unwrap().unwrap(), Protocol::Http1).unwrap()
}

pub(crate) fn client_tls(ca: &std::path::Path, pair: Option<&Pair>) -> ClientTls {
    let (certificate, key) = pair.map(|pair| (pair.certificate.clone(), pair.key.clone())).unzip();
    let files = ClientTlsFiles::new(PemFile::new("ca", ca))
        .with_identity(("certificate", certificate), ("key", key))
        .unwrap();
    ClientTls::load(&files).unwrap()
}

/// Sends a word through TLS; what comes back.
pub(crate) async fn echo(address: SocketAddr, tls: &ClientTls) -> io::Result<String> {
    echo_on(TcpStream::connect(address).await?, tls).await
}

pub(crate) async fn echo_on(stream: TcpStream, tls: &ClientTls) -> io::Result<String> {
    let connector = TlsConnector::from(Arc::new(tls.for_http()));
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
    stream.write_all(b"word").await?;
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes).await?;
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

/// What was logged by the process.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The one log; the first call begins it.
    pub(crate) fn of_process() -> &'static Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Self::default();
            tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).init();
            log
        })
    }

    /// The first line with this in it.
    pub(crate) async fn line_with(&self, part: &str) -> String {
        let line = || {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.lines().find(|line| line.contains(part)).map(str::to_owned)
        };
        eventually(|| async { line().is_some() }).await;
        line().unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Waits until the condition holds, at most ten seconds.
pub(crate) async fn eventually<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    for _ in 0..500 {
        if condition().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the condition never held");
}
