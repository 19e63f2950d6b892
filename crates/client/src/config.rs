use windlass_transport::ClientTls;

use crate::api_key::ApiKey;

/// How to reach a coordinator.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Its gRPC address, as `host:port`, or with the scheme that `tls` calls for.
    pub address: String,
    /// TLS; without it the connection is plain text.
    pub tls: Option<ClientTls>,
    /// Sent with every call, for coordinators that ask for one.
    pub api_key: Option<ApiKey>,
}

impl ClientConfig {
    /// In plain text and without a key.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), tls: None, api_key: None }
    }
}
