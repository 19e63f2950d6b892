//! Whether a certificate is valid by its dates.

use std::time::Duration;

use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage};

/// What is wrong with the dates of a certificate that is to be shown to others, with a remedy; `None` if nothing is.
///
/// Dates are looked at first where a certificate is verified, so no authority is needed for that, and what else fails without one
/// does not count.
pub(crate) fn outdated(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<String> {
    let entity = EndEntityCert::try_from(certificate).ok()?;
    let verified = entity.verify_for_usage(&[], &[], &[], now, KeyUsage::server_auth(), None, None);
    match verified.err()? {
        Error::CertExpired { time, not_after } => {
            let since = span(not_after, time);
            Some(format!("its certificate expired {since} ago: nobody accepts it, so issue a new one"))
        }
        Error::CertNotValidYet { time, not_before } => {
            let until = span(time, not_before);
            Some(format!(
                "its certificate is valid in {until} only: look at this machine's clock, or issue another"
            ))
        }
        Error::InvalidCertValidity => {
            Some("its certificate ends before it begins, so nobody accepts it: issue a new one".to_owned())
        }
        _ => None,
    }
}

/// The time between two moments, in words.
fn span(from: UnixTime, to: UnixTime) -> String {
    match to.as_secs().saturating_sub(from.as_secs()) / (24 * 3600) {
        0 => "less than a day".to_owned(),
        1 => "a day".to_owned(),
        days => format!("{days} days"),
    }
}

/// What time it is.
pub(crate) fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or(Duration::ZERO))
}
