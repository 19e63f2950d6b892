use std::fmt;
use std::time::Duration;

use windlass_transport::{ClientTlsFiles, TlsError};

/// How to reach an etcd cluster, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// Its members, as `http://host:port` or `https://host:port`; at least one, and all of them alike.
    pub endpoints: Vec<String>,
    /// Who asks, where etcd wants to know.
    pub user: Option<(String, EtcdPassword)>,
    /// What is needed for `https`.
    pub tls: Option<ClientTlsFiles>,
    /// How long a call may take, with all its repetitions.
    pub timeout: Duration,
}

impl EtcdConfig {
    /// Without password and TLS; calls take at most five seconds.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self { endpoints, user: None, tls: None, timeout: Duration::from_secs(5) }
    }
}

/// A password, which no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdPassword(pub String);

impl fmt::Debug for EtcdPassword {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

/// Why etcd cannot be reached as configured. Every text begins with the setting at fault.
#[derive(Debug, thiserror::Error)]
pub enum EtcdConfigError {
    /// No endpoint, or one that makes no sense.
    #[error("etcd_endpoints: {reason}")]
    Endpoints {
        /// What is wrong, and what to write.
        reason: String,
    },
    /// A certificate, key or authority cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}
