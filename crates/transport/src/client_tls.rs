use std::path::PathBuf;

use tokio_rustls::rustls::ClientConfig;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::crypto::provider;
use crate::error::TlsError;
use crate::pem::{PemFile, pair_error};

/// The PEM files of a client, and the server's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTlsFiles {
    ca: PemFile,
    /// Certificate and key, for servers that ask for one.
    identity: Option<(PemFile, PemFile)>,
    /// The name the server's certificate must carry, if it is not that of its address.
    server_name: Option<String>,
}

/// TLS of a client, read once.
#[derive(Clone)]
pub struct ClientTls {
    for_http: ClientConfig,
    for_grpc: ClientTlsConfig,
}

impl std::fmt::Debug for ClientTls {
    /// Without what was read, of which a part is secret.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

impl ClientTlsFiles {
    /// Servers must show a certificate signed by one of `ca`.
    pub fn new(ca: PemFile) -> Self {
        Self { ca, identity: None, server_name: None }
    }

    /// Shows a certificate to servers that ask for one. `certificate` and `key` come together; their settings' names
    /// are for errors.
    pub fn with_identity(
        self,
        certificate: (&'static str, Option<PathBuf>),
        key: (&'static str, Option<PathBuf>),
    ) -> Result<Self, TlsError> {
        let identity = match (certificate.1, key.1) {
            (None, None) => None,
            (Some(path), Some(key_path)) => {
                Some((PemFile::new(certificate.0, path), PemFile::new(key.0, key_path)))
            }
            (Some(_), None) => return Err(TlsError::Incomplete { field: key.0, needed_by: certificate.0 }),
            (None, Some(_)) => return Err(TlsError::Incomplete { field: certificate.0, needed_by: key.0 }),
        };
        Ok(Self { identity, ..self })
    }

    /// Expects this name in the server's certificate, whatever its address.
    pub fn with_server_name(self, server_name: Option<String>) -> Self {
        Self { server_name, ..self }
    }
}

impl ClientTls {
    /// Reads the files and checks that they fit together.
    pub fn load(files: &ClientTlsFiles) -> Result<Self, TlsError> {
        let ca = files.ca.read()?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| files.ca.unusable(&error))?
            .with_root_certificates(files.ca.authorities(&ca)?);
        let for_grpc = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        let (for_http, for_grpc) = match &files.identity {
            None => (builder.with_no_client_auth(), for_grpc),
            Some((certificate, key)) => {
                let (texts, key_text) = (certificate.read()?, key.read()?);
                let chain = certificate.certificates(&texts)?;
                // Servers that ask for none still answer.
                if let Err(error) = certificate.check_dates(&chain) {
                    tracing::warn!(%error, "servers that ask for a certificate will refuse this one");
                }
                let for_http = builder
                    .with_client_auth_cert(chain, key.private_key(&key_text)?)
                    .map_err(|error| pair_error(certificate, key, &error))?;
                (for_http, for_grpc.identity(Identity::from_pem(texts, key_text)))
            }
        };
        let for_grpc = match &files.server_name {
            None => for_grpc,
            Some(name) => for_grpc.domain_name(name),
        };
        Ok(Self { for_http, for_grpc })
    }

    /// For gRPC endpoints.
    pub fn for_grpc(&self) -> ClientTlsConfig {
        self.for_grpc.clone()
    }

    /// For HTTP clients; the server's name is that of the URL.
    pub fn for_http(&self) -> ClientConfig {
        self.for_http.clone()
    }
}
