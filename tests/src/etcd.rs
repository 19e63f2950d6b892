//! etcd as processes on free ports of this machine, each with its data in a temporary folder.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use windlass_transport::install_crypto_provider;

use crate::certificates::Certificates;
use crate::eventually;

/// Starts of a cluster, since another program may take a port first.
const STARTS: u32 = 3;

/// How long etcd is away in tests of that: `WINDLASS_TEST_ETCD_AWAY_S`, or 5 s.
pub fn away() -> Result<Duration> {
    let seconds = std::env::var("WINDLASS_TEST_ETCD_AWAY_S").ok();
    let seconds = seconds.map(|text| text.parse().context("WINDLASS_TEST_ETCD_AWAY_S")).transpose()?;
    Ok(Duration::from_secs(seconds.unwrap_or(5)))
}

/// A cluster of etcd. It is killed, and its data deleted, when dropped.
pub struct Etcd {
    folder: TempDir,
    members: Vec<Member>,
    secure: bool,
}

struct Member {
    client_port: u16,
    peer_port: u16,
    metrics_port: u16,
    process: Option<Child>,
}

impl Etcd {
    /// One member, healthy.
    pub async fn start() -> Result<Self> {
        Self::of(1, None, &[]).await
    }

    /// This many members, healthy, with more arguments. With certificates, clients must show one.
    pub async fn of(count: usize, certificates: Option<&Certificates>, arguments: &[&str]) -> Result<Self> {
        install_crypto_provider();
        let mut last = None;
        for _ in 0..STARTS {
            let mut etcd = Self::new(count, certificates)?;
            match etcd.begin(arguments).await {
                Ok(()) => return Ok(etcd),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("etcd was never started")?)
    }

    fn new(count: usize, certificates: Option<&Certificates>) -> Result<Self> {
        // etcd waits for its disk with each write, and for nothing in memory.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
        if let Some(certificates) = certificates {
            certificates.write(folder.path())?;
        }
        // All of them are held until all are known, so that none is given twice.
        let held = (0..3 * count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
        let ports = held.iter().map(|port| Ok(port.local_addr()?.port())).collect::<Result<Vec<_>>>()?;
        let member = |ports: &[u16]| Member {
            client_port: ports[0],
            peer_port: ports[1],
            metrics_port: ports[2],
            process: None,
        };
        let members = ports.chunks(3).map(member).collect();
        Ok(Self { folder, members, secure: certificates.is_some() })
    }

    async fn begin(&mut self, arguments: &[&str]) -> Result<()> {
        for member in 0..self.members.len() {
            self.spawn(member, "new", arguments)?;
        }
        for member in 0..self.members.len() {
            self.is_healthy(member).await?;
        }
        Ok(())
    }

    fn spawn(&mut self, index: usize, state: &str, arguments: &[&str]) -> Result<()> {
        let folder = self.folder.path();
        let scheme = if self.secure { "https" } else { "http" };
        let peers: Vec<_> = (0..self.members.len())
            .map(|index| format!("m{index}=http://127.0.0.1:{}", self.members[index].peer_port))
            .collect();
        let member = &self.members[index];
        let client = format!("{scheme}://127.0.0.1:{}", member.client_port);
        let peer = format!("http://127.0.0.1:{}", member.peer_port);
        let name = format!("m{index}");
        let log = File::options().create(true).append(true).open(folder.join(format!("{name}.log")))?;
        let mut command = Command::new("etcd");
        command.args(["--name", &name, "--data-dir"]).arg(folder.join(&name));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &peers.join(","), "--initial-cluster-state", state]);
        command.args(["--listen-metrics-urls", &format!("http://127.0.0.1:{}", member.metrics_port)]);
        command.args(["--logger", "zap", "--log-level", "warn", "--log-outputs", "stderr"]).args(arguments);
        if self.secure {
            command.args(["--client-cert-auth", "--trusted-ca-file"]).arg(folder.join("ca.pem"));
            command.arg("--cert-file").arg(folder.join("server.pem"));
            command.arg("--key-file").arg(folder.join("server.key"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().context("cannot start etcd: install it, as `make test` does")?;
        self.members[index].process = Some(process);
        Ok(())
    }

    /// Where clients reach its members.
    pub fn endpoints(&self) -> Vec<String> {
        let scheme = if self.secure { "https" } else { "http" };
        self.members.iter().map(|member| format!("{scheme}://127.0.0.1:{}", member.client_port)).collect()
    }

    /// Waits until a member has a leader and answers.
    pub async fn is_healthy(&mut self, index: usize) -> Result<()> {
        let member = &mut self.members[index];
        let process = member.process.as_mut().context("the member was killed")?;
        if let Some(status) = process.try_wait()? {
            let log = std::fs::read_to_string(self.folder.path().join(format!("m{index}.log")))?;
            bail!("etcd ended with {status}: {log}");
        }
        let url = format!("http://127.0.0.1:{}/health", member.metrics_port);
        let is_healthy = async || {
            let response = reqwest::Client::new().get(&url).timeout(Duration::from_secs(2)).send().await?;
            Ok(response.text().await?.contains(r#""health":"true""#))
        };
        eventually("etcd is healthy", is_healthy).await
    }

    /// Which member leads.
    pub async fn leader(&self) -> Result<usize> {
        for (index, member) in self.members.iter().enumerate().filter(|(_, member)| member.process.is_some())
        {
            let metrics = reqwest::get(format!("http://127.0.0.1:{}/metrics", member.metrics_port)).await?;
            if metrics.text().await?.contains("\netcd_server_is_leader 1\n") {
                return Ok(index);
            }
        }
        bail!("no member of etcd leads")
    }

    /// Ends a member at once, as a crash would.
    pub fn kill(&mut self, index: usize) -> Result<()> {
        let mut process = self.members[index].process.take().context("the member was killed before")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// Starts a member that was killed, with the data it had.
    pub async fn restart(&mut self, index: usize) -> Result<()> {
        self.spawn(index, "existing", &[])?;
        self.is_healthy(index).await
    }

    /// Sends a signal to a member, such as `-STOP`.
    pub fn signal(&self, index: usize, signal: &str) -> Result<()> {
        let process = self.members[index].process.as_ref().context("the member was killed")?;
        crate::signal(process.id(), signal)
    }

    /// Runs `etcdctl` on the cluster.
    pub fn control(&self, arguments: &[&str]) -> Result<()> {
        let endpoints = self.endpoints().join(",");
        let output = Command::new("etcdctl").args(["--endpoints", &endpoints]).args(arguments).output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Asks for passwords from now on: `root`'s is `root`, and `user` may read and write below `prefix` alone.
    pub fn require_passwords(&self, user: &str, password: &str, prefix: &str) -> Result<()> {
        self.control(&["user", "add", "root:root"])?;
        self.control(&["user", "grant-role", "root", "root"])?;
        self.control(&["role", "add", user])?;
        self.control(&["role", "grant-permission", "--prefix=true", user, "readwrite", prefix])?;
        self.control(&["user", "add", &format!("{user}:{password}")])?;
        self.control(&["user", "grant-role", user, user])?;
        self.control(&["auth", "enable"])
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for process in self.members.iter_mut().filter_map(|member| member.process.as_mut()) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
