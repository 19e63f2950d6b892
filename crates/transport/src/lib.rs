//! How the servers and clients of Windlass connect: TLS from PEM files, handshakes that end, a bound on connections.
//!
//! Knows no request, no service and no API key. Servers accept through [`Incoming`], which any front can read from;
//! clients get TLS for gRPC and HTTP from one [`ClientTls`].

mod client_tls;
mod connection;
mod crypto;
mod error;
mod incoming;
mod pem;
mod server_tls;
#[cfg(feature = "test-support")]
pub mod test_certificates;
mod tls_fault;
mod validity;

pub use client_tls::{ClientTls, ClientTlsFiles};
pub use connection::Connection;
pub use crypto::install_crypto_provider;
pub use error::TlsError;
pub use incoming::Incoming;
pub use pem::PemFile;
pub use server_tls::{Protocol, ServerTls, ServerTlsFiles};
pub use tls_fault::{TlsFault, causes};
