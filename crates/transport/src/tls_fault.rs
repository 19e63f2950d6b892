use std::error::Error;
use std::io;

use tokio_rustls::rustls;

/// What TLS says of a certificate that the other side does not accept, or misses.
const CERTIFICATE_ALERTS: [&str; 8] = [
    "BadCertificate",
    "UnsupportedCertificate",
    "CertificateRequired",
    "CertificateUnknown",
    "CertificateExpired",
    "CertificateRevoked",
    "UnknownCA",
    "AccessDenied",
];
/// What rustls says where the other side answers in plain text.
const PLAIN_TEXT: &str = "received corrupt message of type InvalidContentType";

/// Why two sides cannot talk by TLS. Trying again does not help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsFault {
    /// This side does not accept the other's certificate, for this reason.
    PeerCertificate(String),
    /// The other side does not accept this side's certificate, or misses one; its word for that.
    OwnCertificate(String),
    /// The other side does not speak TLS.
    PlainText,
}

impl TlsFault {
    /// What of this kind an error of a connection comes from.
    ///
    /// What the other side says is known by its words: where the handshake is over when they come, HTTP/2 hides what they were.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        causes(error).into_iter().find_map(|cause| {
            if let Some(rustls::Error::InvalidCertificate(_)) = cause.downcast_ref() {
                return Some(Self::PeerCertificate(cause.to_string()));
            }
            let text = cause.to_string();
            if text.contains(PLAIN_TEXT) {
                return Some(Self::PlainText);
            }
            let alert = text.split("received fatal alert: ").nth(1)?;
            let known = CERTIFICATE_ALERTS.iter().find(|known| alert.starts_with(**known))?;
            Some(Self::OwnCertificate((*known).to_owned()))
        })
    }
}

/// The error and what it came from, the innermost last.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut causes = vec![error];
    let mut last = error;
    loop {
        let next = match last.downcast_ref::<io::Error>() {
            // Its own `source` would skip what it wraps.
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => last.source(),
        };
        let Some(next) = next else { return causes };
        causes.push(next);
        last = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: rustls::Error) -> Option<TlsFault> {
        TlsFault::of(&io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error)))
    }

    #[test]
    fn faults_of_certificates_are_found_in_what_wraps_them() {
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert_eq!(
            of(unknown),
            Some(TlsFault::PeerCertificate("invalid peer certificate: UnknownIssuer".into()))
        );
        let required = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
        assert_eq!(of(required), Some(TlsFault::OwnCertificate("CertificateRequired".into())));
        let plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert_eq!(of(plain), Some(TlsFault::PlainText));
        assert_eq!(of(rustls::Error::DecryptError), None);
        assert_eq!(TlsFault::of(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
    }
}
