use tonic::transport::Channel;
use windlass_transport::ClientTls;

use crate::config::endpoint;
use crate::error::CoordinatorError;

/// The way to workers: over the network, or over what a simulation takes for it.
pub trait Connect: Send + Sync {
    /// A channel to the worker at `address`, which connects when first used and again after every loss. Called inside a
    /// tokio runtime.
    fn connect(&self, address: &str) -> Result<Channel, CoordinatorError>;
}

/// Over TCP.
#[derive(Debug, Clone, Default)]
pub struct TcpConnect {
    /// Without it in plain text.
    pub tls: Option<ClientTls>,
}

impl Connect for TcpConnect {
    fn connect(&self, address: &str) -> Result<Channel, CoordinatorError> {
        Ok(endpoint(address, self.tls.as_ref())?.connect_lazy())
    }
}
