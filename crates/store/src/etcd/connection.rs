use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, Error, TlsOptions};
use tonic::transport::Endpoint;
use windlass_transport::ClientTls;

use super::config::{EtcdConfig, EtcdConfigError};

/// etcd takes a client that pings more often than every five seconds, or without a call under way, for a mistake.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(6);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The way to an etcd cluster: a connection to one member, and to the next one when that fails.
#[derive(Clone)]
pub(super) struct Connection {
    config: Arc<EtcdConfig>,
    options: ConnectOptions,
    current: Arc<Mutex<Current>>,
}

struct Current {
    client: Option<Client>,
    /// Grows with every member given up. The first is drawn, so that not everyone begins with the same.
    number: usize,
}

impl Connection {
    pub(super) fn new(config: EtcdConfig) -> Result<Self, EtcdConfigError> {
        let mut options = ConnectOptions::new()
            .with_keep_alive(KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT)
            .with_keep_alive_while_idle(false)
            .with_connect_timeout(CONNECT_TIMEOUT.min(config.timeout))
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((user, password)) = &config.user {
            options = options.with_user(user, &password.0);
        }
        let tls = config.tls.as_ref().map(ClientTls::load).transpose()?.map(|tls| tls.for_grpc());
        if let Some(tls) = tls.clone() {
            options = options.with_tls(tls);
        }
        check(&config.endpoints, tls.as_ref())?;
        Ok(Self {
            config: Arc::new(config),
            options,
            current: Arc::new(Mutex::new(Current { client: None, number: draw() })),
        })
    }

    /// How long a call may take.
    pub(super) fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// The number of the member in use.
    pub(super) fn member(&self) -> usize {
        self.current().number
    }

    /// Where this member is.
    pub(super) fn endpoint(&self, member: usize) -> &str {
        &self.config.endpoints[member % self.config.endpoints.len()]
    }

    /// The client of this member.
    pub(super) async fn client(&self, member: usize) -> Result<Client, Error> {
        if let Current { client: Some(client), number } = &*self.current()
            && *number == member
        {
            return Ok(client.clone());
        }
        let endpoint = self.endpoint(member);
        // Says no more than who asks, and only where there is a password.
        let client = Client::connect([endpoint], Some(self.options.clone())).await?;
        let mut current = self.current();
        if current.number == member {
            current.client = Some(client.clone());
        }
        Ok(client)
    }

    /// Turns to the next member, unless someone else did. Watches that use this one go on as long as they can.
    pub(super) fn give_up(&self, member: usize) {
        let mut current = self.current();
        if current.number == member {
            *current = Current { client: None, number: member.wrapping_add(1) };
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Any number, with room to grow.
fn draw() -> usize {
    RandomState::new().hash_one(Instant::now()) as usize >> 1
}

/// Finds out what would fail for good.
fn check(endpoints: &[String], tls: Option<&TlsOptions>) -> Result<(), EtcdConfigError> {
    let refused = |reason| Err(EtcdConfigError::Endpoints { reason });
    if endpoints.is_empty() {
        return refused("the list is empty: name at least one as http://host:port".into());
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    for endpoint in endpoints {
        let Some(parsed) = Endpoint::from_shared(endpoint.clone()).ok().filter(is_address) else {
            return refused(format!("'{endpoint}' is no endpoint: use {scheme}://host:port"));
        };
        if parsed.uri().scheme_str() != Some(scheme) {
            let remedy = if tls.is_some() {
                "with etcd_ca use https://host:port"
            } else {
                "use http://host:port, or set etcd_ca to the authority of etcd's certificate"
            };
            return refused(format!("'{endpoint}' does not fit: {remedy}"));
        }
        if let Some(Err(error)) = tls.map(|tls| parsed.tls_config(tls.clone())) {
            return refused(format!("'{endpoint}' cannot be used: {}", super::error::chain(&error)));
        }
    }
    Ok(())
}

fn is_address(endpoint: &Endpoint) -> bool {
    let uri = endpoint.uri();
    let has_port = uri.port_u16().is_some_and(|port| port > 0);
    has_port && uri.scheme().is_some() && uri.host().is_some_and(|host| !host.is_empty())
}
