//! The one provider of cryptography, ring.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};

/// Named each time, so that it does not matter what a process has installed.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Makes it the process's own, unless there is one. Libraries that speak HTTP ask the process for its provider, and panic without.
pub fn install_crypto_provider() {
    // An error tells that there is one.
    let _ = ring::default_provider().install_default();
}
