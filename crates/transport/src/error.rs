use std::io;
use std::path::PathBuf;

/// Why TLS cannot be set up. Every text begins with the setting at fault.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One setting makes no sense without another.
    #[error("{field} is not set, but {needed_by} is: set both or none")]
    Incomplete {
        /// The setting that is missing.
        field: &'static str,
        /// The setting that is there.
        needed_by: &'static str,
    },
    /// The file cannot be read.
    #[error("{field}: cannot read {}: {source}", path.display())]
    Unreadable {
        /// The setting.
        field: &'static str,
        /// The file it names.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file was read, and holds nothing of the kind.
    #[error("{field}: {} has no {wanted}: it must hold one in PEM, beginning with -----BEGIN", path.display())]
    Missing {
        /// The setting.
        field: &'static str,
        /// The file it names.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// What the file holds cannot be used.
    #[error("{field}: {} cannot be used: {reason}", path.display())]
    Unusable {
        /// The setting.
        field: &'static str,
        /// The file it names.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key is another certificate's.
    #[error("{field}: the key in {} does not belong to the certificate in {}", path.display(), certificate.display())]
    KeyMismatch {
        /// The setting that names the key.
        field: &'static str,
        /// The key's file.
        path: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
}
