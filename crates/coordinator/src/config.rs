use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::uri::Authority;
use tonic::transport::Endpoint;
use windlass_transport::{ClientTls, ClientTlsFiles, ServerTlsFiles};

use crate::error::CoordinatorError;

/// What a coordinator is told when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorConfig {
    /// Addresses of the workers, as `host:port` or with the scheme that `worker_tls` calls for; at least one, each once.
    pub workers: Vec<String>,
    /// Most sequences generated at once; a request counts one for each of its prompts and choices. Further requests
    /// are told to come back later.
    pub max_concurrent_requests: u32,
    /// How often a worker is asked for its health and load.
    pub poll_interval: Duration,
    /// How long running generations may go on once the shutdown began.
    pub shutdown_deadline: Duration,
    /// TLS of both fronts; without it they speak plain text.
    pub tls: Option<ServerTlsFiles>,
    /// TLS on the way to the workers; without it that is plain text.
    pub worker_tls: Option<ClientTlsFiles>,
    /// File of API keys. It is read again when it changes.
    pub api_keys_file: Option<PathBuf>,
    /// Further API keys, as `name:sha256`. Without a file and without these, everyone may ask.
    pub api_keys: Vec<String>,
    /// Most that one request may ask for.
    pub request_limits: RequestLimits,
    /// How long a client has for a request's head, again for its body, and to begin the next one.
    pub read_timeout: Duration,
    /// Most connections of each front; further clients wait in the system's queue.
    pub max_connections: usize,
}

/// Most that one request may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLimits {
    /// Bytes of an HTTP body, and of a gRPC message.
    pub max_body_bytes: usize,
    /// Tokens of a prompt, below what the model takes.
    pub max_prompt_tokens: Option<u32>,
    /// Choices of each prompt.
    pub max_n: u32,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { max_body_bytes: 4 << 20, max_prompt_tokens: None, max_n: 16 }
    }
}

impl CoordinatorConfig {
    /// The defaults, for these workers.
    pub fn new(workers: Vec<String>) -> Self {
        Self {
            workers,
            max_concurrent_requests: 1024,
            poll_interval: Duration::from_millis(500),
            shutdown_deadline: Duration::from_secs(30),
            tls: None,
            worker_tls: None,
            api_keys_file: None,
            api_keys: Vec::new(),
            request_limits: RequestLimits::default(),
            read_timeout: Duration::from_secs(30),
            max_connections: 4096,
        }
    }

    /// Checks every value; the error names the field.
    pub fn validate(&self) -> Result<(), CoordinatorError> {
        let invalid = |field, reason| Err(CoordinatorError::Config { field, reason });
        if self.workers.is_empty() {
            return invalid("workers", "the list is empty: name at least one worker as host:port".into());
        }
        let mut known = BTreeSet::new();
        for address in &self.workers {
            if !known.insert(host_and_port(address)?) {
                return invalid("workers", format!("'{address}' is listed twice: list each worker once"));
            }
            check_scheme(address, self.worker_tls.is_some())?;
        }
        if self.max_concurrent_requests == 0 {
            return invalid("max_concurrent_requests", "0 would refuse every request: use at least 1".into());
        }
        if self.poll_interval.is_zero() {
            return invalid("poll_interval", "0 s would ask without pause: use 500 ms, say".into());
        }
        if self.read_timeout.is_zero() {
            return invalid("read_timeout", "0 s would refuse every request: use 30 s, say".into());
        }
        let RequestLimits { max_body_bytes, max_prompt_tokens, max_n } = self.request_limits;
        let counts = [
            ("max_connections", self.max_connections as u64),
            ("max_body_bytes", max_body_bytes as u64),
            ("max_prompt_tokens", max_prompt_tokens.unwrap_or(u32::MAX).into()),
            ("max_n", max_n.into()),
        ];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            Some((field, _)) => invalid(field, "0 would refuse every request: use at least 1".into()),
            None => Ok(()),
        }
    }
}

/// How to reach a worker. A dead peer is noticed within three seconds, whether or not a request is under way.
///
/// With TLS every worker is reached by it, whether its address says `https` or nothing; without it, none is.
pub(crate) fn endpoint(address: &str, tls: Option<&ClientTls>) -> Result<Endpoint, CoordinatorError> {
    check_scheme(address, tls.is_some())?;
    let (host, port) = host_and_port(address)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint =
        Endpoint::from_shared(format!("{scheme}://{host}:{port}")).map_err(|_| not_an_address(address))?;
    let endpoint = match tls {
        None => endpoint,
        Some(tls) => endpoint.tls_config(tls.for_grpc()).map_err(|error| CoordinatorError::Config {
            field: "worker_tls_name",
            reason: format!("no TLS to {address} is possible: {error}"),
        })?,
    };
    Ok(endpoint
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true))
}

/// The address without what may be written in several ways.
fn host_and_port(address: &str) -> Result<(String, u16), CoordinatorError> {
    let (_, authority) = address.split_once("://").unwrap_or(("", address));
    let authority: Authority = authority.parse().map_err(|_| not_an_address(address))?;
    match authority.port_u16() {
        Some(port) if port > 0 => Ok((authority.host().to_ascii_lowercase(), port)),
        _ => Err(not_an_address(address)),
    }
}

/// Refuses a scheme that contradicts the settings: what is meant to be secret never goes out in plain text.
fn check_scheme(address: &str, tls: bool) -> Result<(), CoordinatorError> {
    let invalid = |reason| Err(CoordinatorError::Config { field: "workers", reason });
    match address.split_once("://").map(|(scheme, _)| scheme) {
        None => Ok(()),
        Some("http") if !tls => Ok(()),
        Some("https") if tls => Ok(()),
        Some("http") => invalid(format!(
            "'{address}' is without TLS, but worker_ca is set: use https://, or leave the scheme out"
        )),
        Some("https") => invalid(format!(
            "'{address}' needs TLS: set worker_ca to the authority that signed the workers' certificates"
        )),
        Some(_) => Err(not_an_address(address)),
    }
}

fn not_an_address(address: &str) -> CoordinatorError {
    CoordinatorError::Config {
        field: "workers",
        reason: format!("'{address}' is not an address: use host:port, with a port from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use windlass_transport::PemFile;

    use super::*;

    #[test]
    fn a_bad_value_is_refused_with_its_field() {
        let good = CoordinatorConfig::new(vec!["127.0.0.1:50051".into(), "http://worker-2:50051".into()]);
        good.validate().unwrap();
        let with = |change: fn(&mut CoordinatorConfig)| {
            let mut config = good.clone();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(with(|c| c.workers.clear()).contains("workers: the list is empty"));
        assert!(with(|c| c.workers[0] = "nowhere".into()).contains("'nowhere' is not an address"));
        assert!(
            with(|c| c.workers[0] = "https://a:1".into()).contains("'https://a:1' needs TLS: set worker_ca")
        );
        assert!(with(|c| c.workers[0] = "ftp://a:1".into()).contains("'ftp://a:1' is not an address"));
        let without_tls =
            with(|c| c.worker_tls = Some(ClientTlsFiles::new(PemFile::new("worker_ca", "ca.pem"))));
        assert!(without_tls.contains("'http://worker-2:50051' is without TLS, but worker_ca is set"));
        for field in ["max_connections", "max_body_bytes", "max_prompt_tokens", "max_n"] {
            let mut config = good.clone();
            match field {
                "max_connections" => config.max_connections = 0,
                "max_body_bytes" => config.request_limits.max_body_bytes = 0,
                "max_prompt_tokens" => config.request_limits.max_prompt_tokens = Some(0),
                _ => config.request_limits.max_n = 0,
            }
            let message = config.validate().unwrap_err().to_string();
            assert_eq!(message, format!("{field}: 0 would refuse every request: use at least 1"));
        }
        assert!(with(|c| c.read_timeout = Duration::ZERO).contains("read_timeout"));
        assert!(with(|c| c.workers[1] = c.workers[0].clone()).contains("listed twice"));
        assert!(with(|c| c.workers[0] = "WORKER-2:50051".into()).contains("listed twice"));
        assert!(with(|c| c.workers[0] = "a:0".into()).contains("'a:0' is not an address"));
        assert!(with(|c| c.max_concurrent_requests = 0).contains("max_concurrent_requests"));
        assert!(with(|c| c.poll_interval = Duration::ZERO).contains("poll_interval"));
    }
}
