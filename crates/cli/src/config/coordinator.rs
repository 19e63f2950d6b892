use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use serde::Deserialize;
use windlass_coordinator::CoordinatorConfig;

use super::{checked_address, set};

/// What can be set of a coordinator. The same names in flags, in the environment and in the file's section
/// `coordinator`.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Coordinator")]
pub(crate) struct CoordinatorOptions {
    /// Address of the OpenAI-compatible HTTP service; port 0 takes a free one [default: 127.0.0.1:8000]
    #[arg(long, value_name = "HOST:PORT", env = "WINDLASS_HTTP")]
    pub(crate) http: Option<String>,
    /// Address of the gRPC service; port 0 takes a free one [default: 127.0.0.1:8001]
    #[arg(long, value_name = "HOST:PORT", env = "WINDLASS_GRPC")]
    pub(crate) grpc: Option<String>,
    /// Addresses of the workers, separated by commas; at least one, unless etcd knows them
    #[arg(long, value_name = "HOST:PORT,...", env = "WINDLASS_WORKERS", value_delimiter = ',')]
    pub(crate) workers: Option<Vec<String>>,
    /// How often each worker says that it lives, and its load, in milliseconds, 10 to 60000 [default: 500]
    #[arg(long, value_name = "MS", env = "WINDLASS_HEARTBEAT_INTERVAL_MS")]
    pub(crate) heartbeat_interval_ms: Option<u64>,
    /// A worker that says nothing for this many milliseconds is lost, and its requests go on elsewhere [default: 1500]
    #[arg(long, value_name = "MS", env = "WINDLASS_HEARTBEAT_TIMEOUT_MS")]
    pub(crate) heartbeat_timeout_ms: Option<u64>,
    /// Most sequences generated at once; further requests wait [default: 1024]
    #[arg(long, value_name = "N", env = "WINDLASS_MAX_CONCURRENT_REQUESTS")]
    pub(crate) max_concurrent_requests: Option<u32>,
    /// Most requests that wait, 0 for none; further ones are told to come back later [default: 1024]
    #[arg(long, value_name = "N", env = "WINDLASS_MAX_QUEUED_REQUESTS")]
    pub(crate) max_queued_requests: Option<u32>,
    /// Most core iterations that the waiting requests are expected to take in all [default: no limit]
    #[arg(long, value_name = "N", env = "WINDLASS_MAX_QUEUED_CORE_ITERATIONS")]
    pub(crate) max_queued_core_iterations: Option<u64>,
    /// How long a request waits at most, in milliseconds [default: 30000]
    #[arg(long, value_name = "MS", env = "WINDLASS_QUEUE_TIMEOUT_MS")]
    pub(crate) queue_timeout_ms: Option<u64>,
    /// How often a request whose worker is lost goes on at another, at most; 0 ends it with its worker [default: 8]
    #[arg(long, value_name = "N", env = "WINDLASS_MAX_MIGRATIONS")]
    pub(crate) max_migrations: Option<u32>,
    /// How long a request whose worker is lost waits for one that takes it over, in milliseconds [default: 30000]
    #[arg(long, value_name = "MS", env = "WINDLASS_MIGRATION_PATIENCE_MS")]
    pub(crate) migration_patience_ms: Option<u64>,
    /// A worker where this many requests in a row fail is left out for a while [default: 5]
    #[arg(long, value_name = "N", env = "WINDLASS_BREAKER_FAILURES")]
    pub(crate) breaker_failures: Option<u32>,
    /// A prompt goes to the worker that knows its beginning, unless that owes more than this many times the mean and one
    /// request more; at least 1 [default: 1.25]
    #[arg(long, value_name = "X", env = "WINDLASS_AFFINITY_LOAD_FACTOR")]
    pub(crate) affinity_load_factor: Option<f64>,
    /// How long running generations may go on once the coordinator is told to end, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS", env = "WINDLASS_SHUTDOWN_DEADLINE_S")]
    pub(crate) shutdown_deadline_s: Option<u64>,
}

/// A coordinator's settings, checked.
#[derive(Debug)]
pub(crate) struct CoordinatorSettings {
    pub(crate) http: String,
    pub(crate) grpc: String,
    pub(crate) config: CoordinatorConfig,
}

impl CoordinatorOptions {
    /// These options, completed by others.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            http: self.http.or(other.http),
            grpc: self.grpc.or(other.grpc),
            workers: self.workers.or(other.workers),
            heartbeat_interval_ms: self.heartbeat_interval_ms.or(other.heartbeat_interval_ms),
            heartbeat_timeout_ms: self.heartbeat_timeout_ms.or(other.heartbeat_timeout_ms),
            max_concurrent_requests: self.max_concurrent_requests.or(other.max_concurrent_requests),
            max_queued_requests: self.max_queued_requests.or(other.max_queued_requests),
            max_queued_core_iterations: self.max_queued_core_iterations.or(other.max_queued_core_iterations),
            queue_timeout_ms: self.queue_timeout_ms.or(other.queue_timeout_ms),
            max_migrations: self.max_migrations.or(other.max_migrations),
            migration_patience_ms: self.migration_patience_ms.or(other.migration_patience_ms),
            breaker_failures: self.breaker_failures.or(other.breaker_failures),
            affinity_load_factor: self.affinity_load_factor.or(other.affinity_load_factor),
            shutdown_deadline_s: self.shutdown_deadline_s.or(other.shutdown_deadline_s),
        }
    }

    /// Fills in defaults and checks every value, for a fixed list of workers.
    pub(crate) fn settings(self) -> Result<CoordinatorSettings> {
        let settings = self.completed()?;
        settings.config.validate()?;
        Ok(settings)
    }

    /// Fills in defaults and checks every value, for workers that are found in etcd.
    pub(crate) fn settings_with_etcd(self) -> Result<CoordinatorSettings> {
        if self.workers.is_some() {
            bail!("workers and etcd_endpoints are both set: name the workers, or where to find them");
        }
        let settings = self.completed()?;
        settings.config.validate_without_workers()?;
        Ok(settings)
    }

    fn completed(self) -> Result<CoordinatorSettings> {
        let http = checked_address("http", self.http.unwrap_or_else(|| "127.0.0.1:8000".to_owned()))?;
        let grpc = checked_address("grpc", self.grpc.unwrap_or_else(|| "127.0.0.1:8001".to_owned()))?;
        let mut config = CoordinatorConfig::new(self.workers.unwrap_or_default());
        set(&mut config.heartbeat_interval, self.heartbeat_interval_ms.map(Duration::from_millis));
        set(&mut config.heartbeat_timeout, self.heartbeat_timeout_ms.map(Duration::from_millis));
        set(&mut config.max_concurrent_requests, self.max_concurrent_requests);
        set(&mut config.max_queued_requests, self.max_queued_requests);
        config.max_queued_core_iterations = self.max_queued_core_iterations;
        set(&mut config.queue_timeout, self.queue_timeout_ms.map(Duration::from_millis));
        set(&mut config.max_migrations, self.max_migrations);
        set(&mut config.migration_patience, self.migration_patience_ms.map(Duration::from_millis));
        set(&mut config.breaker_failures, self.breaker_failures);
        set(&mut config.affinity_load_factor, self.affinity_load_factor);
        set(&mut config.shutdown_deadline, self.shutdown_deadline_s.map(Duration::from_secs));
        Ok(CoordinatorSettings { http, grpc, config })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> CoordinatorOptions {
        CoordinatorOptions { workers: Some(vec!["a:1".to_owned()]), ..CoordinatorOptions::default() }
    }

    #[test]
    fn defaults_are_those_of_the_help() {
        let CoordinatorSettings { http, grpc, config } = options().settings().unwrap();
        assert_eq!((http.as_str(), grpc.as_str()), ("127.0.0.1:8000", "127.0.0.1:8001"));
        assert_eq!(config.max_concurrent_requests, 1024);
        let seconds = [config.queue_timeout, config.migration_patience, config.shutdown_deadline];
        assert_eq!(seconds.map(|duration| duration.as_secs()), [30, 30, 30]);
        let heart = (config.heartbeat_interval.as_millis(), config.heartbeat_timeout.as_millis());
        assert_eq!(heart, (500, 1500));
        assert_eq!((config.max_queued_requests, config.max_queued_core_iterations), (1024, None));
        assert_eq!((config.max_migrations, config.breaker_failures), (8, 5));
        assert_eq!(config.affinity_load_factor, 1.25);
    }

    #[test]
    fn wrong_values_are_named_with_a_remedy() {
        let cases = [
            (CoordinatorOptions::default(), "workers: the list is empty: name at least one"),
            (
                CoordinatorOptions { workers: Some(vec!["a".into()]), ..options() },
                "workers: 'a' is not an address",
            ),
            (CoordinatorOptions { http: Some(":1".into()), ..options() }, "http is ':1': use HOST:PORT"),
            (CoordinatorOptions { grpc: Some("a:b".into()), ..options() }, "grpc is 'a:b': use HOST:PORT"),
            (
                CoordinatorOptions { max_concurrent_requests: Some(0), ..options() },
                "max_concurrent_requests: 0",
            ),
            (
                CoordinatorOptions { heartbeat_interval_ms: Some(0), ..options() },
                "heartbeat_interval: 0ns is out of range: use 10ms to 60s",
            ),
            (
                CoordinatorOptions { heartbeat_timeout_ms: Some(500), ..options() },
                "heartbeat_timeout: 500ms is not longer than the interval of 500ms: use 1.5s, say",
            ),
        ];
        for (options, expected) in cases {
            let message = options.settings().unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
