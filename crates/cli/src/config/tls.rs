use std::path::PathBuf;

use clap::Args;

/// TLS of a server's own ports. One process has one set of flags; a file has one per section.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsOptions {
    /// PEM file of the server's certificate and those between it and its authority; asks clients for TLS
    #[arg(long, value_name = "FILE", env = "WINDLASS_TLS_CERTIFICATE")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// PEM file of the certificate's private key
    #[arg(long, value_name = "FILE", env = "WINDLASS_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,
    /// PEM file of the authorities that sign clients' certificates; every client must show one then
    #[arg(long, value_name = "FILE", env = "WINDLASS_TLS_CLIENT_CA")]
    pub(crate) tls_client_ca: Option<PathBuf>,
}
