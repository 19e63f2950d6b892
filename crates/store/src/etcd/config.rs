use std::fmt;
use std::time::Duration;

/// How to reach an etcd cluster, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// Its members, as `http://host:port` or `https://host:port`; at least one, and all of them alike.
    pub endpoints: Vec<String>,
    /// Who asks, where etcd wants to know.
    pub user: Option<(String, EtcdPassword)>,
    /// What is needed for `https`.
    pub tls: Option<EtcdTls>,
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

/// Whom to trust, and what to show; all in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdTls {
    /// Certificates of the authorities that may vouch for etcd.
    pub ca: Vec<u8>,
    /// What is shown to etcd, where it wants to see something.
    pub identity: Option<EtcdIdentity>,
}

impl fmt::Debug for EtcdTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EtcdTls").field("identity", &self.identity.is_some()).finish_non_exhaustive()
    }
}

/// A client certificate and its key, both in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdIdentity {
    /// The certificate, and those between it and the authority.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
}

impl fmt::Debug for EtcdIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EtcdIdentity").finish_non_exhaustive()
    }
}
