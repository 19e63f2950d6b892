use axum::http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest, Sha256};

/// A key's SHA-256, by which it is known.
pub(super) type KeyDigest = [u8; 32];

/// Why a request has no caller. The texts never repeat what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unauthorized {
    #[error("an API key is required: send it as 'Authorization: Bearer KEY'")]
    Missing,
    #[error("the Authorization header cannot be read: send one, as 'Authorization: Bearer KEY'")]
    Malformed,
    #[error("the API key is not known: it is mistyped, or was taken back")]
    Unknown,
}

pub(super) fn digest(key: &[u8]) -> KeyDigest {
    Sha256::digest(key).into()
}

/// The digest of the one key that these headers bring.
pub(super) fn presented(headers: &HeaderMap) -> Result<KeyDigest, Unauthorized> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Unauthorized::Missing)?.as_bytes();
    let (scheme, key) = value.split_at_checked(7).ok_or(Unauthorized::Malformed)?;
    let key = key.trim_ascii();
    if values.next().is_some() || !scheme.eq_ignore_ascii_case(b"bearer ") || key.is_empty() {
        return Err(Unauthorized::Malformed);
    }
    Ok(digest(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn a_key_is_known_by_its_digest() {
        for value in ["Bearer abc", "bearer  abc ", "BEARER abc"] {
            assert_eq!(presented(&headers(&[value])), Ok(digest(b"abc")), "{value}");
        }
    }

    #[test]
    fn headers_without_exactly_one_key_are_refused() {
        assert_eq!(presented(&headers(&[])), Err(Unauthorized::Missing));
        for values in [&["abc"][..], &["Basic YWJj"], &["Bearer "], &["Bearer"], &["Bearer a", "Bearer b"]] {
            assert_eq!(presented(&headers(values)), Err(Unauthorized::Malformed), "{values:?}");
        }
    }
}
