use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::uri::Authority;
use tonic::transport::Endpoint;
use windlass_transport::{ClientTls, ClientTlsFiles, ServerTlsFiles};

use crate::admission::QueueLimits;
use crate::dispatch::MigrationSettings;
use crate::error::CoordinatorError;
use crate::registry::{RegistrySettings, WorkerId};

/// What workers can be asked for.
const HEARTBEAT_INTERVALS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);

/// What a coordinator is told when it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct CoordinatorConfig {
    /// Addresses of the workers, as `host:port` or with the scheme that `worker_tls` calls for; at least one, each once.
    pub workers: Vec<String>,
    /// How often a worker says that it lives, and its load; 10 ms to a minute.
    pub heartbeat_interval: Duration,
    /// A worker that says nothing for longer is lost, and its requests go on elsewhere.
    pub heartbeat_timeout: Duration,
    /// Most sequences generated at once; a request counts one for each of its prompts and choices. Further requests wait.
    pub max_concurrent_requests: u32,
    /// Most requests that wait; further ones are told to come back later.
    pub max_queued_requests: u32,
    /// Most core iterations that the waiting requests are expected to take in all; `None` for no limit.
    pub max_queued_core_iterations: Option<u64>,
    /// How long a request waits at most.
    pub queue_timeout: Duration,
    /// How often a request goes on at another worker, at most; 0 ends it with its worker.
    pub max_migrations: u32,
    /// How long a request whose worker was lost waits for one that takes it over.
    pub migration_patience: Duration,
    /// A request that got no first token for so long is sent to a second worker too, if one has nobody waiting; `None` for
    /// never.
    pub hedge_after: Option<Duration>,
    /// A worker where this many requests in a row fail is left out for a while.
    pub breaker_failures: u32,
    /// A prompt goes to the worker that knows its beginning unless that owes more than this many times the mean, and one
    /// request more; at least 1.
    pub affinity_load_factor: f64,
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
            heartbeat_interval: Duration::from_millis(500),
            heartbeat_timeout: Duration::from_millis(1500),
            max_concurrent_requests: 1024,
            max_queued_requests: 1024,
            max_queued_core_iterations: None,
            queue_timeout: Duration::from_secs(30),
            max_migrations: 8,
            migration_patience: Duration::from_secs(30),
            hedge_after: None,
            breaker_failures: 5,
            affinity_load_factor: 1.25,
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
            return invalid("workers", "the list is empty: name at least one worker as host:port, or an etcd where they register (etcd_endpoints)".into());
        }
        let mut known = BTreeSet::new();
        for address in &self.workers {
            if !known.insert(host_and_port(address)?) {
                return invalid("workers", format!("'{address}' is listed twice: list each worker once"));
            }
            check_scheme(address, self.worker_tls.is_some())?;
        }
        self.validate_without_workers()
    }

    /// Checks every value but the list of workers, which is not used where they are found elsewhere.
    pub fn validate_without_workers(&self) -> Result<(), CoordinatorError> {
        let invalid = |field, reason| Err(CoordinatorError::Config { field, reason });
        self.validate_heartbeats()?;
        if self.max_concurrent_requests == 0 {
            return invalid("max_concurrent_requests", "0 would refuse every request: use at least 1".into());
        }
        if self.max_queued_core_iterations == Some(0) {
            let reason = "0 would refuse every request: use at least 1, or leave it out for no limit";
            return invalid("max_queued_core_iterations", reason.into());
        }
        if self.breaker_failures == 0 {
            return invalid("breaker_failures", "0 would leave every worker out: use at least 1".into());
        }
        let factor = self.affinity_load_factor;
        if !(factor.is_finite() && factor >= 1.0) {
            return invalid("affinity_load_factor", format!("{factor} is out of range: use 1 or more"));
        }
        if self.read_timeout.is_zero() {
            return invalid("read_timeout_s", "0 s would refuse every request: use 30 s, say".into());
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

    fn validate_heartbeats(&self) -> Result<(), CoordinatorError> {
        let invalid = |field, reason| Err(CoordinatorError::Config { field, reason });
        let (interval, timeout) = (self.heartbeat_interval, self.heartbeat_timeout);
        if !(HEARTBEAT_INTERVALS).contains(&interval) {
            let [shortest, longest] = [HEARTBEAT_INTERVALS.start(), HEARTBEAT_INTERVALS.end()];
            let reason = format!("{interval:?} is out of range: use {shortest:?} to {longest:?}");
            return invalid("heartbeat_interval_ms", reason);
        }
        if timeout <= interval {
            let reason = format!(
                "{timeout:?} is not longer than the interval of {interval:?}: use {:?}, say",
                3 * interval
            );
            return invalid("heartbeat_timeout_ms", reason);
        }
        Ok(())
    }

    /// The workers of the list; the id of each is its address as it is written there.
    pub(crate) fn members(&self) -> BTreeMap<WorkerId, String> {
        self.workers.iter().map(|address| (WorkerId::new(address), address.clone())).collect()
    }

    pub(crate) fn registry(&self, seed: u64) -> RegistrySettings {
        RegistrySettings {
            heartbeat_interval: self.heartbeat_interval,
            heartbeat_timeout: self.heartbeat_timeout,
            breaker_failures: self.breaker_failures,
            affinity_load_factor: self.affinity_load_factor,
            seed,
        }
    }

    pub(crate) fn queue(&self) -> QueueLimits {
        QueueLimits {
            running_sequences: self.max_concurrent_requests,
            queued_requests: self.max_queued_requests,
            queued_core_iterations: self.max_queued_core_iterations,
            timeout: self.queue_timeout,
            has_metrics: true,
        }
    }

    pub(crate) fn migration(&self) -> MigrationSettings {
        MigrationSettings {
            most: self.max_migrations,
            patience: self.migration_patience,
            hedge_after: self.hedge_after,
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
        assert!(with(|c| c.max_queued_core_iterations = Some(0)).contains("max_queued_core_iterations: 0"));
        assert!(
            with(|c| c.heartbeat_interval = Duration::ZERO).contains("heartbeat_interval_ms: 0ns is out of")
        );
        assert!(
            with(|c| c.heartbeat_timeout = c.heartbeat_interval)
                .contains("heartbeat_timeout_ms: 500ms is not")
        );
        assert!(with(|c| c.breaker_failures = 0).contains("breaker_failures: 0"));
        assert!(with(|c| c.affinity_load_factor = 0.5).contains("affinity_load_factor: 0.5 is out of range"));
        assert!(with(|c| c.affinity_load_factor = f64::NAN).contains("affinity_load_factor: NaN"));
    }
}
