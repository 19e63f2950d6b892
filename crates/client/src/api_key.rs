use std::fmt::{self, Debug, Formatter};
use std::str::FromStr;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// A secret that tells a server who asks. It never shows in logs and debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// The key itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for ApiKey {
    type Err = String;

    fn from_str(key: &str) -> Result<Self, String> {
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("an API key has at least one character, and no spaces".to_owned());
        }
        Ok(Self(key.to_owned()))
    }
}

impl Debug for ApiKey {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKey(secret)")
    }
}

/// Puts the key on every call.
#[derive(Debug, Clone)]
pub(crate) struct Authorization(Option<MetadataValue<Ascii>>);

impl Authorization {
    pub(crate) fn new(key: Option<&ApiKey>) -> Self {
        Self(key.map(|key| {
            let mut value: MetadataValue<Ascii> =
                format!("Bearer {}", key.expose()).parse().expect("a key is made of visible characters");
            value.set_sensitive(true);
            value
        }))
    }
}

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_shows() {
        let key: ApiKey = "wl-hidden".parse().unwrap();
        let shown = format!("{key:?} {:?}", Authorization::new(Some(&key)));
        assert!(!shown.contains("hidden"), "{shown}");
        assert!("".parse::<ApiKey>().is_err() && "a b".parse::<ApiKey>().is_err());
    }
}
