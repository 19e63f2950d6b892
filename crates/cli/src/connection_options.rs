//! How commands reach a coordinator: TLS and the API key.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use windlass_client::{
    ApiKey, Client, ClientConfig, ClientTls, ClientTlsFiles, PemFile, install_crypto_provider,
};

/// The same for all commands that talk to a coordinator.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionOptions {
    /// PEM file of the authority that signed the coordinator's certificate; the connection is by TLS then
    #[arg(long, global = true, value_name = "FILE", env = "WINDLASS_CA")]
    ca: Option<PathBuf>,
    /// PEM file of a certificate to show, where the coordinator asks for one
    #[arg(long, global = true, value_name = "FILE", env = "WINDLASS_CERTIFICATE")]
    certificate: Option<PathBuf>,
    /// PEM file of that certificate's private key
    #[arg(long, global = true, value_name = "FILE", env = "WINDLASS_KEY")]
    key: Option<PathBuf>,
    /// API key, where the coordinator asks for one; better in the environment, where other users do not see it
    #[arg(long, global = true, value_name = "KEY", env = "WINDLASS_API_KEY", hide_env_values = true)]
    api_key: Option<GivenKey>,
}

/// What was given as an API key. Checked later than other values, since clap's errors repeat them.
#[derive(Clone)]
struct GivenKey(String);

impl From<String> for GivenKey {
    fn from(key: String) -> Self {
        Self(key)
    }
}

impl std::fmt::Debug for GivenKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("GivenKey(secret)")
    }
}

impl ConnectionOptions {
    /// The scheme that these options call for.
    pub(crate) fn http_scheme(&self) -> &'static str {
        if self.ca.is_some() { "https" } else { "http" }
    }

    /// TLS, if it is asked for.
    pub(crate) fn tls(&self) -> Result<Option<ClientTls>> {
        let Some(ca) = &self.ca else {
            if self.certificate.is_some() || self.key.is_some() {
                bail!("certificate and key are for TLS: set ca too");
            }
            return Ok(None);
        };
        let files = ClientTlsFiles::new(PemFile::new("ca", ca))
            .with_identity(("certificate", self.certificate.clone()), ("key", self.key.clone()))?;
        Ok(Some(ClientTls::load(&files)?))
    }

    /// Connects to the gRPC service at this address.
    pub(crate) async fn grpc_client(&self, address: &str) -> Result<Client> {
        let config =
            ClientConfig { tls: self.tls()?, api_key: self.api_key()?, ..ClientConfig::new(address) };
        Client::connect_with(config).await.context("cannot reach the coordinator")
    }

    /// A client for a URL with a scheme, which must be the one these options call for.
    pub(crate) fn http_client(&self, url: &str) -> Result<reqwest::Client> {
        match (url.split_once("://").map(|(scheme, _)| scheme), self.http_scheme()) {
            (Some("https"), "http") => {
                bail!(
                    "url: {url} needs TLS: set ca to the authority of its certificate, such as {SYSTEM_AUTHORITIES}"
                );
            }
            (Some("http"), "https") => bail!("url: {url} is without TLS, but ca is set: use https://"),
            _ => {}
        }
        install_crypto_provider();
        let builder = reqwest::Client::builder().connect_timeout(Duration::from_secs(5));
        let builder = match self.tls()? {
            Some(tls) => builder.tls_backend_preconfigured(tls.for_http()),
            // Plain text must not need the system's authorities.
            None => builder.tls_certs_only([]),
        };
        Ok(builder.default_headers(self.headers()?).build()?)
    }

    fn api_key(&self) -> Result<Option<ApiKey>> {
        let key = self.api_key.as_ref().map(|GivenKey(key)| key.parse::<ApiKey>());
        key.transpose().map_err(|error| anyhow!("api_key (WINDLASS_API_KEY): {error}"))
    }

    fn headers(&self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        if let Some(key) = self.api_key()? {
            let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose()))
                .context("api_key cannot be sent: use letters and digits")?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }
}

/// Where Debian keeps the authorities that browsers trust.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

#[cfg(test)]
mod tests {
    use super::*;

    fn error(options: &ConnectionOptions, url: &str) -> String {
        options.http_client(url).unwrap_err().to_string()
    }

    #[test]
    fn contradictions_are_named() {
        let plain = ConnectionOptions::default();
        assert!(error(&plain, "https://a").starts_with("url: https://a needs TLS: set ca"));
        let secure = ConnectionOptions { ca: Some("ca.pem".into()), ..ConnectionOptions::default() };
        assert!(error(&secure, "http://a").contains("is without TLS, but ca is set"));
        assert!(error(&secure, "https://a").starts_with("ca: cannot read ca.pem"));
        let keyed = ConnectionOptions { key: Some("a.key".into()), ..ConnectionOptions::default() };
        assert!(error(&keyed, "http://a").contains("set ca too"));
    }

    #[test]
    fn a_key_is_sent_and_never_shown() {
        let options =
            ConnectionOptions { api_key: Some(GivenKey("wl-hidden".into())), ..ConnectionOptions::default() };
        assert_eq!(options.headers().unwrap()[AUTHORIZATION], "Bearer wl-hidden");
        let shown = format!("{options:?} {:?}", options.headers().unwrap());
        assert!(!shown.contains("hidden"), "{shown}");
        let spaced = ConnectionOptions { api_key: Some(GivenKey("wl- hidden".into())), ..options };
        let error = spaced.headers().unwrap_err().to_string();
        assert_eq!(error, "api_key (WINDLASS_API_KEY): an API key has at least one character, and no spaces");
    }
}
