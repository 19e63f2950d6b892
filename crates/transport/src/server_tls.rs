use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::interval;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::WebPkiClientVerifier;

use crate::crypto::provider;
use crate::error::TlsError;
use crate::pem::{PemFile, pair_error};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The PEM files of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTlsFiles {
    certificate: PemFile,
    key: PemFile,
    client_ca: Option<PemFile>,
}

/// What is spoken inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, and gRPC over it.
    Http2,
}

/// TLS of a server. Files that change are read again; connections that exist keep what they began with.
#[derive(Debug)]
pub struct ServerTls {
    files: ServerTlsFiles,
    protocol: Protocol,
    config: RwLock<Arc<ServerConfig>>,
    /// What the files held when last looked at, or why they could not be read.
    seen: Mutex<Result<Texts, String>>,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
struct Texts {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl std::fmt::Debug for Texts {
    /// Without the texts, of which one is secret.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Texts").finish_non_exhaustive()
    }
}

impl ServerTlsFiles {
    /// The files that the settings `tls_certificate`, `tls_key` and `tls_client_ca` name; `None` where none is set.
    pub fn from_settings(
        tls_certificate: Option<PathBuf>,
        tls_key: Option<PathBuf>,
        tls_client_ca: Option<PathBuf>,
    ) -> Result<Option<Self>, TlsError> {
        let incomplete = |field, needed_by| Err(TlsError::Incomplete { field, needed_by });
        match (tls_certificate, tls_key, tls_client_ca) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), client_ca) => Ok(Some(Self {
                certificate: PemFile::new("tls_certificate", certificate),
                key: PemFile::new("tls_key", key),
                client_ca: client_ca.map(|path| PemFile::new("tls_client_ca", path)),
            })),
            (Some(_), None, _) => incomplete("tls_key", "tls_certificate"),
            (None, Some(_), _) => incomplete("tls_certificate", "tls_key"),
            (None, None, Some(_)) => incomplete("tls_certificate", "tls_client_ca"),
        }
    }

    fn read(&self) -> Result<Texts, TlsError> {
        let client_ca = self.client_ca.as_ref().map(PemFile::read).transpose()?;
        Ok(Texts { certificate: self.certificate.read()?, key: self.key.read()?, client_ca })
    }

    fn config(&self, texts: &Texts, protocol: Protocol) -> Result<ServerConfig, TlsError> {
        let certificates = self.certificate.certificates(&texts.certificate)?;
        self.certificate.check_dates(&certificates)?;
        let key = self.key.private_key(&texts.key)?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| self.certificate.unusable(&error))?;
        let builder = match (&self.client_ca, &texts.client_ca) {
            (Some(file), Some(text)) => {
                let authorities = Arc::new(file.authorities(text)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider()).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| file.unusable(&error))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(certificates, key)
            .map_err(|error| pair_error(&self.certificate, &self.key, &error))?;
        config.alpn_protocols = match protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec()],
        };
        Ok(config)
    }
}

impl ServerTls {
    /// Reads the files and checks that they fit together.
    pub fn load(files: ServerTlsFiles, protocol: Protocol) -> Result<Self, TlsError> {
        let texts = files.read()?;
        let config = RwLock::new(Arc::new(files.config(&texts, protocol)?));
        Ok(Self { files, protocol, config, seen: Mutex::new(Ok(texts)) })
    }

    /// Whether every client must show a certificate.
    pub fn asks_clients(&self) -> bool {
        self.files.client_ca.is_some()
    }

    /// What new connections are served with.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files again and again, and takes over what changed.
    pub(crate) async fn follow_files(self: Arc<Self>) {
        let mut looks = interval(LOOK_INTERVAL);
        loop {
            looks.tick().await;
            let tls = Arc::clone(&self);
            // Blocking, as the files may lie on a network.
            let _ = tokio::task::spawn_blocking(move || tls.look()).await;
        }
    }

    /// A change that cannot be used is reported once, and what was there before stays in use.
    fn look(&self) {
        let texts = self.files.read().map_err(|error| error.to_string());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == texts {
            return;
        }
        let config = texts
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|texts| self.files.config(texts, self.protocol).map_err(|error| error.to_string()));
        match config {
            Ok(config) => {
                *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                tracing::info!(certificate = %self.files.certificate.path.display(), "TLS files were read again");
            }
            Err(error) => tracing::error!(error, "TLS files changed and cannot be used: the old ones stay"),
        }
        *seen = texts;
    }
}
