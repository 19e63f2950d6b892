use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use axum::http::uri::Authority;
use tonic::transport::Endpoint;

use crate::admission::QueueLimits;
use crate::dispatch::MigrationSettings;
use crate::error::CoordinatorError;
use crate::random::random_u64;
use crate::registry::{RegistrySettings, WorkerId};

/// What workers can be asked for.
const HEARTBEAT_INTERVALS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);

/// What a coordinator is told when it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct CoordinatorConfig {
    /// Addresses of the workers, as `host:port` or `http://host:port`; at least one, each once.
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
    /// A worker where this many requests in a row fail is left out for a while.
    pub breaker_failures: u32,
    /// A prompt goes to the worker that knows its beginning unless that owes more than this many times the mean, and one
    /// request more; at least 1.
    pub affinity_load_factor: f64,
    /// How long running generations may go on once the shutdown began.
    pub shutdown_deadline: Duration,
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
            breaker_failures: 5,
            affinity_load_factor: 1.25,
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
        Ok(())
    }

    fn validate_heartbeats(&self) -> Result<(), CoordinatorError> {
        let invalid = |field, reason| Err(CoordinatorError::Config { field, reason });
        let (interval, timeout) = (self.heartbeat_interval, self.heartbeat_timeout);
        if !(HEARTBEAT_INTERVALS).contains(&interval) {
            let [shortest, longest] = [HEARTBEAT_INTERVALS.start(), HEARTBEAT_INTERVALS.end()];
            let reason = format!("{interval:?} is out of range: use {shortest:?} to {longest:?}");
            return invalid("heartbeat_interval", reason);
        }
        if timeout <= interval {
            let reason = format!(
                "{timeout:?} is not longer than the interval of {interval:?}: use {:?}, say",
                3 * interval
            );
            return invalid("heartbeat_timeout", reason);
        }
        Ok(())
    }

    /// The workers of the list; the id of each is its address as it is written there.
    pub(crate) fn members(&self) -> BTreeMap<WorkerId, String> {
        self.workers.iter().map(|address| (WorkerId::new(address), address.clone())).collect()
    }

    pub(crate) fn registry(&self) -> RegistrySettings {
        RegistrySettings {
            heartbeat_interval: self.heartbeat_interval,
            heartbeat_timeout: self.heartbeat_timeout,
            breaker_failures: self.breaker_failures,
            affinity_load_factor: self.affinity_load_factor,
            seed: random_u64(),
        }
    }

    pub(crate) fn queue(&self) -> QueueLimits {
        QueueLimits {
            running_sequences: self.max_concurrent_requests,
            queued_requests: self.max_queued_requests,
            queued_core_iterations: self.max_queued_core_iterations,
            timeout: self.queue_timeout,
        }
    }

    pub(crate) fn migration(&self) -> MigrationSettings {
        MigrationSettings { most: self.max_migrations, patience: self.migration_patience }
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
        assert!(with(|c| c.max_queued_core_iterations = Some(0)).contains("max_queued_core_iterations: 0"));
        assert!(
            with(|c| c.heartbeat_interval = Duration::ZERO).contains("heartbeat_interval: 0ns is out of")
        );
        assert!(
            with(|c| c.heartbeat_timeout = c.heartbeat_interval).contains("heartbeat_timeout: 500ms is not")
        );
        assert!(with(|c| c.breaker_failures = 0).contains("breaker_failures: 0"));
        assert!(with(|c| c.affinity_load_factor = 0.5).contains("affinity_load_factor: 0.5 is out of range"));
        assert!(with(|c| c.affinity_load_factor = f64::NAN).contains("affinity_load_factor: NaN"));
    }
}
