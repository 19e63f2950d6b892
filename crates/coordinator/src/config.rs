use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::uri::Authority;
use tonic::transport::Endpoint;

use crate::error::CoordinatorError;

/// What a coordinator is told when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorConfig {
    /// Addresses of the workers, as `host:port` or `http://host:port`; at least one, each once.
    pub workers: Vec<String>,
    /// Most sequences generated at once; a request counts one for each of its prompts and choices. Further requests
    /// are told to come back later.
    pub max_concurrent_requests: u32,
    /// How often a worker is asked for its health and load.
    pub poll_interval: Duration,
    /// How long running generations may go on once the shutdown began.
    pub shutdown_deadline: Duration,
}

impl CoordinatorConfig {
    /// The defaults, for these workers.
    pub fn new(workers: Vec<String>) -> Self {
        Self {
            workers,
            max_concurrent_requests: 1024,
            poll_interval: Duration::from_millis(500),
            shutdown_deadline: Duration::from_secs(30),
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
            endpoint(address)?;
        }
        if self.max_concurrent_requests == 0 {
            return invalid("max_concurrent_requests", "0 would refuse every request: use at least 1".into());
        }
        if self.poll_interval.is_zero() {
            return invalid("poll_interval", "0 s would ask without pause: use 500 ms, say".into());
        }
        Ok(())
    }
}

/// How to reach a worker. A dead peer is noticed within three seconds, whether or not a request is under way.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, CoordinatorError> {
    let (host, port) = host_and_port(address)?;
    let endpoint =
        Endpoint::from_shared(format!("http://{host}:{port}")).map_err(|_| not_an_address(address))?;
    Ok(endpoint
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true))
}

/// The address without what may be written in several ways.
fn host_and_port(address: &str) -> Result<(String, u16), CoordinatorError> {
    let authority = address.strip_prefix("http://").unwrap_or(address);
    let authority: Authority = authority.parse().map_err(|_| not_an_address(address))?;
    match authority.port_u16() {
        Some(port) if port > 0 => Ok((authority.host().to_ascii_lowercase(), port)),
        _ => Err(not_an_address(address)),
    }
}

fn not_an_address(address: &str) -> CoordinatorError {
    CoordinatorError::Config {
        field: "workers",
        reason: format!(
            "'{address}' is not an address: use host:port or http://host:port, with a port from 1 to 65535"
        ),
    }
}

#[cfg(test)]
mod tests {
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
        assert!(with(|c| c.workers[0] = "https://a:1".into()).contains("'https://a:1' is not an address"));
        assert!(with(|c| c.workers[1] = c.workers[0].clone()).contains("listed twice"));
        assert!(with(|c| c.workers[0] = "WORKER-2:50051".into()).contains("listed twice"));
        assert!(with(|c| c.workers[0] = "a:0".into()).contains("'a:0' is not an address"));
        assert!(with(|c| c.max_concurrent_requests = 0).contains("max_concurrent_requests"));
        assert!(with(|c| c.poll_interval = Duration::ZERO).contains("poll_interval"));
    }
}
