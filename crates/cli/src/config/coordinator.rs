use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use serde::Deserialize;
use windlass_coordinator::{ClientTlsFiles, CoordinatorConfig, PemFile, ServerTlsFiles};

use super::{TlsOptions, checked_address, set};

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
    /// Most requests that wait, 0 for none; of further ones, and of those in line, the last of lowest priority is told to come
    /// back later [default: 1024]
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
    /// A request that got no first token within this many milliseconds is sent to a second worker too, if one has nobody
    /// waiting; whichever answers first is taken. 0 for never. Costs core iterations twice [default: 0]
    #[arg(long, value_name = "MS", env = "WINDLASS_HEDGE_AFTER_MS")]
    pub(crate) hedge_after_ms: Option<u64>,
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
    /// PEM file of the authority that signed the workers' certificates; workers are reached by TLS then
    #[arg(long, value_name = "FILE", env = "WINDLASS_WORKER_CA")]
    pub(crate) worker_ca: Option<PathBuf>,
    /// PEM file of the certificate that the coordinator shows to workers that ask for one
    #[arg(long, value_name = "FILE", env = "WINDLASS_WORKER_CERTIFICATE")]
    pub(crate) worker_certificate: Option<PathBuf>,
    /// PEM file of that certificate's private key
    #[arg(long, value_name = "FILE", env = "WINDLASS_WORKER_KEY")]
    pub(crate) worker_key: Option<PathBuf>,
    /// Name that workers' certificates must carry, where it is not that of their addresses
    #[arg(long, value_name = "NAME", env = "WINDLASS_WORKER_TLS_NAME")]
    pub(crate) worker_tls_name: Option<String>,
    /// TOML file of API keys, as `windlass keys generate` writes its entries; read again when it changes. Without it and
    /// without api_keys everyone may ask
    #[arg(long, value_name = "FILE", env = "WINDLASS_API_KEYS_FILE")]
    pub(crate) api_keys_file: Option<PathBuf>,
    /// Further API keys, separated by commas, without limits: a name and the SHA-256 of the key in hexadecimal
    #[arg(
        long,
        value_name = "NAME:SHA256,...",
        env = "WINDLASS_API_KEYS",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) api_keys: Option<Vec<String>>,
    /// Largest HTTP body and gRPC message, in bytes [default: 4194304]
    #[arg(long, value_name = "BYTES", env = "WINDLASS_MAX_BODY_BYTES")]
    pub(crate) max_body_bytes: Option<usize>,
    /// Most tokens of a prompt [default: what the model and its workers take]
    #[arg(long, value_name = "N", env = "WINDLASS_MAX_PROMPT_TOKENS")]
    pub(crate) max_prompt_tokens: Option<u32>,
    /// Most choices of a prompt, the field n of a request [default: 16]
    #[arg(long, value_name = "N", env = "WINDLASS_MAX_N")]
    pub(crate) max_n: Option<u32>,
    /// How long a client has for the head of an HTTP request, again for its body, and to begin the next one, in seconds
    /// [default: 30]
    #[arg(long, value_name = "SECONDS", env = "WINDLASS_READ_TIMEOUT_S")]
    pub(crate) read_timeout_s: Option<u64>,
    /// Most connections to each of the two services; further clients wait [default: 4096]
    #[arg(long, value_name = "N", env = "WINDLASS_MAX_CONNECTIONS")]
    pub(crate) max_connections: Option<usize>,
    // Of the coordinator's section; the flags are `TlsOptions`, which worker and coordinator share.
    #[arg(skip)]
    pub(crate) tls_certificate: Option<PathBuf>,
    #[arg(skip)]
    pub(crate) tls_key: Option<PathBuf>,
    #[arg(skip)]
    pub(crate) tls_client_ca: Option<PathBuf>,
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
            hedge_after_ms: self.hedge_after_ms.or(other.hedge_after_ms),
            breaker_failures: self.breaker_failures.or(other.breaker_failures),
            affinity_load_factor: self.affinity_load_factor.or(other.affinity_load_factor),
            shutdown_deadline_s: self.shutdown_deadline_s.or(other.shutdown_deadline_s),
            worker_ca: self.worker_ca.or(other.worker_ca),
            worker_certificate: self.worker_certificate.or(other.worker_certificate),
            worker_key: self.worker_key.or(other.worker_key),
            worker_tls_name: self.worker_tls_name.or(other.worker_tls_name),
            api_keys_file: self.api_keys_file.or(other.api_keys_file),
            api_keys: self.api_keys.or(other.api_keys),
            max_body_bytes: self.max_body_bytes.or(other.max_body_bytes),
            max_prompt_tokens: self.max_prompt_tokens.or(other.max_prompt_tokens),
            max_n: self.max_n.or(other.max_n),
            read_timeout_s: self.read_timeout_s.or(other.read_timeout_s),
            max_connections: self.max_connections.or(other.max_connections),
            tls_certificate: self.tls_certificate.or(other.tls_certificate),
            tls_key: self.tls_key.or(other.tls_key),
            tls_client_ca: self.tls_client_ca.or(other.tls_client_ca),
        }
    }

    /// These options, with TLS as the flags have it.
    pub(crate) fn with_tls(self, tls: TlsOptions) -> Self {
        let TlsOptions { tls_certificate, tls_key, tls_client_ca } = tls;
        Self { tls_certificate, tls_key, tls_client_ca, ..self }
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
        let worker_tls = self.worker_tls()?;
        if self.max_migrations == Some(0) && self.migration_patience_ms.is_some() {
            bail!("migration_patience_ms is set, and max_migrations is 0: leave it out, or allow migrations");
        }
        if self.max_queued_requests == Some(0) && self.queue_timeout_ms.is_some() {
            bail!(
                "queue_timeout_ms is set, and max_queued_requests is 0: leave it out, or let requests wait"
            );
        }
        let http = checked_address("http", self.http.unwrap_or_else(|| "127.0.0.1:8000".to_owned()))?;
        let grpc = checked_address("grpc", self.grpc.unwrap_or_else(|| "127.0.0.1:8001".to_owned()))?;
        let mut config = CoordinatorConfig::new(self.workers.unwrap_or_default());
        config.worker_tls = worker_tls;
        config.tls = ServerTlsFiles::from_settings(self.tls_certificate, self.tls_key, self.tls_client_ca)?;
        config.api_keys_file = self.api_keys_file;
        config.api_keys = self.api_keys.unwrap_or_default();
        set(&mut config.request_limits.max_body_bytes, self.max_body_bytes);
        set(&mut config.request_limits.max_prompt_tokens, self.max_prompt_tokens.map(Some));
        set(&mut config.request_limits.max_n, self.max_n);
        set(&mut config.read_timeout, self.read_timeout_s.map(Duration::from_secs));
        set(&mut config.max_connections, self.max_connections);
        set(&mut config.heartbeat_interval, self.heartbeat_interval_ms.map(Duration::from_millis));
        set(&mut config.heartbeat_timeout, self.heartbeat_timeout_ms.map(Duration::from_millis));
        set(&mut config.max_concurrent_requests, self.max_concurrent_requests);
        set(&mut config.max_queued_requests, self.max_queued_requests);
        config.max_queued_core_iterations = self.max_queued_core_iterations;
        set(&mut config.queue_timeout, self.queue_timeout_ms.map(Duration::from_millis));
        set(&mut config.max_migrations, self.max_migrations);
        set(&mut config.migration_patience, self.migration_patience_ms.map(Duration::from_millis));
        config.hedge_after = self.hedge_after_ms.filter(|ms| *ms > 0).map(Duration::from_millis);
        set(&mut config.breaker_failures, self.breaker_failures);
        set(&mut config.affinity_load_factor, self.affinity_load_factor);
        set(&mut config.shutdown_deadline, self.shutdown_deadline_s.map(Duration::from_secs));
        Ok(CoordinatorSettings { http, grpc, config })
    }

    fn worker_tls(&self) -> Result<Option<ClientTlsFiles>> {
        let Some(ca) = &self.worker_ca else {
            let needs_ca = [
                ("worker_certificate", self.worker_certificate.is_some()),
                ("worker_key", self.worker_key.is_some()),
                ("worker_tls_name", self.worker_tls_name.is_some()),
            ];
            if let Some((field, _)) = needs_ca.iter().find(|(_, is_set)| *is_set) {
                bail!(
                    "worker_ca is not set, but {field} is: set it to the authority that signed the workers' certificates"
                );
            }
            return Ok(None);
        };
        let files = ClientTlsFiles::new(PemFile::new("worker_ca", ca))
            .with_identity(
                ("worker_certificate", self.worker_certificate.clone()),
                ("worker_key", self.worker_key.clone()),
            )?
            .with_server_name(self.worker_tls_name.clone());
        Ok(Some(files))
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
        assert_eq!(config.hedge_after, None);
        let hedged = CoordinatorOptions { hedge_after_ms: Some(70), ..options() }.settings().unwrap();
        assert_eq!(hedged.config.hedge_after, Some(Duration::from_millis(70)));
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
                CoordinatorOptions { worker_tls_name: Some("w".into()), ..options() },
                "worker_ca is not set, but worker_tls_name is",
            ),
            (
                CoordinatorOptions { tls_certificate: Some("c".into()), ..options() },
                "tls_key is not set, but tls_certificate is",
            ),
            (
                CoordinatorOptions { max_migrations: Some(0), migration_patience_ms: Some(9), ..options() },
                "migration_patience_ms is set, and max_migrations is 0",
            ),
            (
                CoordinatorOptions { max_queued_requests: Some(0), queue_timeout_ms: Some(9), ..options() },
                "queue_timeout_ms is set, and max_queued_requests is 0",
            ),
            (CoordinatorOptions { max_n: Some(0), ..options() }, "max_n: 0 would refuse every request"),
            (CoordinatorOptions { read_timeout_s: Some(0), ..options() }, "read_timeout_s: 0 s would refuse"),
            (
                CoordinatorOptions { heartbeat_interval_ms: Some(0), ..options() },
                "heartbeat_interval_ms: 0ns is out of range: use 10ms to 60s",
            ),
            (
                CoordinatorOptions { heartbeat_timeout_ms: Some(500), ..options() },
                "heartbeat_timeout_ms: 500ms is not longer than the interval of 500ms: use 1.5s, say",
            ),
        ];
        for (options, expected) in cases {
            let message = options.settings().unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
