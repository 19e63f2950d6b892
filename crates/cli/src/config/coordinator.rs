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
    /// Addresses of the workers, separated by commas; at least one
    #[arg(long, value_name = "HOST:PORT,...", env = "WINDLASS_WORKERS", value_delimiter = ',')]
    pub(crate) workers: Option<Vec<String>>,
    /// Most sequences generated at once; further requests are told to come back later [default: 1024]
    #[arg(long, value_name = "N", env = "WINDLASS_MAX_CONCURRENT_REQUESTS")]
    pub(crate) max_concurrent_requests: Option<u32>,
    /// How often each worker is asked for its health and load, in milliseconds [default: 500]
    #[arg(long, value_name = "MS", env = "WINDLASS_POLL_INTERVAL_MS")]
    pub(crate) poll_interval_ms: Option<u64>,
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
            max_concurrent_requests: self.max_concurrent_requests.or(other.max_concurrent_requests),
            poll_interval_ms: self.poll_interval_ms.or(other.poll_interval_ms),
            shutdown_deadline_s: self.shutdown_deadline_s.or(other.shutdown_deadline_s),
        }
    }

    /// Fills in defaults and checks every value.
    pub(crate) fn settings(self) -> Result<CoordinatorSettings> {
        let http = checked_address("http", self.http.unwrap_or_else(|| "127.0.0.1:8000".to_owned()))?;
        let grpc = checked_address("grpc", self.grpc.unwrap_or_else(|| "127.0.0.1:8001".to_owned()))?;
        if self.poll_interval_ms == Some(0) {
            bail!("poll_interval_ms is 0: use at least 1");
        }
        let mut config = CoordinatorConfig::new(self.workers.unwrap_or_default());
        set(&mut config.max_concurrent_requests, self.max_concurrent_requests);
        set(&mut config.poll_interval, self.poll_interval_ms.map(Duration::from_millis));
        set(&mut config.shutdown_deadline, self.shutdown_deadline_s.map(Duration::from_secs));
        config.validate()?;
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
        assert_eq!((config.poll_interval.as_millis(), config.shutdown_deadline.as_secs()), (500, 30));
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
                CoordinatorOptions { poll_interval_ms: Some(0), ..options() },
                "poll_interval_ms is 0: use at least 1",
            ),
        ];
        for (options, expected) in cases {
            let message = options.settings().unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
