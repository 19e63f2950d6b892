/// Why a coordinator cannot start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// A value of the configuration cannot be used.
    #[error("{field}: {reason}")]
    Config {
        /// The field of `CoordinatorConfig`.
        field: &'static str,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A certificate, key or authority cannot be used.
    #[error(transparent)]
    Tls(#[from] windlass_transport::TlsError),
    /// The process has a metrics recorder that is not the coordinator's.
    #[error("cannot record metrics: {reason}")]
    Metrics {
        /// What the recorder says.
        reason: String,
    },
    /// The gRPC front failed.
    #[error("grpc server: {0}")]
    Grpc(#[source] tonic::transport::Error),
    /// The gRPC API's description cannot be served.
    #[error("grpc reflection: {reason}")]
    Reflection {
        /// What is wrong with it.
        reason: String,
    },
}
