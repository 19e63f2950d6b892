//! Certificates and keys in PEM files, with errors that name the setting.

use std::fs;
use std::path::PathBuf;

use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, RootCertStore};

use crate::error::TlsError;
use crate::validity::{now, outdated};

/// A file in PEM, and the setting that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PemFile {
    /// The setting.
    pub field: &'static str,
    /// The file.
    pub path: PathBuf,
}

impl PemFile {
    /// `path` as the setting `field` names it.
    pub fn new(field: &'static str, path: impl Into<PathBuf>) -> Self {
        Self { field, path: path.into() }
    }

    pub(crate) fn read(&self) -> Result<Vec<u8>, TlsError> {
        fs::read(&self.path).map_err(|source| TlsError::Unreadable {
            field: self.field,
            path: self.path.clone(),
            source,
        })
    }

    /// All certificates of this text, at least one.
    pub(crate) fn certificates(&self, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => Err(self.missing("certificate")),
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(self.unusable(&error)),
        }
    }

    /// The first private key of this text.
    pub(crate) fn private_key(&self, text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
            pem::Error::NoItemsFound => self.missing("private key"),
            error => self.unusable(&error),
        })
    }

    /// The certificates of this text as those that vouch for others.
    pub(crate) fn authorities(&self, text: &[u8]) -> Result<RootCertStore, TlsError> {
        let mut authorities = RootCertStore::empty();
        for certificate in self.certificates(text)? {
            authorities.add(certificate).map_err(|error| self.unusable(&error))?;
        }
        Ok(authorities)
    }

    pub(crate) fn unusable(&self, error: &dyn std::error::Error) -> TlsError {
        TlsError::Unusable { field: self.field, path: self.path.clone(), reason: error.to_string() }
    }

    /// Refuses a certificate whose time is over, or has not come.
    pub(crate) fn check_dates(&self, chain: &[CertificateDer<'_>]) -> Result<(), TlsError> {
        match chain.first().and_then(|own| outdated(own, now())) {
            Some(reason) => Err(TlsError::Unusable { field: self.field, path: self.path.clone(), reason }),
            None => Ok(()),
        }
    }

    fn missing(&self, wanted: &'static str) -> TlsError {
        TlsError::Missing { field: self.field, path: self.path.clone(), wanted }
    }
}

/// What is wrong with a certificate and its key, by the file that is at fault.
pub(crate) fn pair_error(certificate: &PemFile, key: &PemFile, error: &rustls::Error) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch {
            field: key.field,
            path: key.path.clone(),
            certificate: certificate.path.clone(),
        },
        rustls::Error::General(_) => key.unusable(error),
        _ => certificate.unusable(error),
    }
}
