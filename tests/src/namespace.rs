//! A network of one's own for a process, so that it can be cut off. Needs root and Debian's iproute2 and iptables.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A network namespace joined to the host's by a pair of devices. It is deleted when dropped.
pub struct Namespace {
    name: String,
    /// The host's address, as seen from inside.
    pub outside: String,
    /// The address of processes inside.
    pub inside: String,
}

impl Namespace {
    /// A new one, that no other test has.
    pub fn create() -> Result<Self> {
        let pid = std::process::id();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("windlass-{pid}-{count}");
        // A /30 of 10.64.0.0/10 for each.
        let subnet = (pid.wrapping_mul(16).wrapping_add(count) % (1 << 20)) * 4;
        let address = |host: u32| {
            let [_, b, c, d] = (subnet + host).to_be_bytes();
            format!("10.{}.{c}.{d}", 64 + b)
        };
        let namespace = Self { name, outside: address(1), inside: address(2) };
        namespace
            .set_up(&format!("w{pid}-{count}"))
            .context("no network namespace: run the tests as root")?;
        Ok(namespace)
    }

    /// A command that runs inside.
    pub fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Drops every packet in and out, without a word to either side.
    pub fn cut_off(&self) -> Result<()> {
        self.rules("-A")
    }

    /// Lets packets through again.
    pub fn join(&self) -> Result<()> {
        self.rules("-D")
    }

    fn set_up(&self, device: &str) -> Result<()> {
        let Self { name, outside, inside } = self;
        let peer = format!("{device}p");
        run("ip", &["netns", "add", name])?;
        run("ip", &["link", "add", device, "type", "veth", "peer", "name", &peer, "netns", name])?;
        run("ip", &["address", "add", &format!("{outside}/30"), "dev", device])?;
        run("ip", &["link", "set", device, "up"])?;
        run("ip", &["-n", name, "address", "add", &format!("{inside}/30"), "dev", &peer])?;
        run("ip", &["-n", name, "link", "set", &peer, "up"])?;
        run("ip", &["-n", name, "link", "set", "lo", "up"])
    }

    fn rules(&self, change: &str) -> Result<()> {
        for chain in ["INPUT", "OUTPUT"] {
            run("ip", &["netns", "exec", &self.name, "iptables", "-w", change, chain, "-j", "DROP"])?;
        }
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Takes the pair of devices with it. It stays only if the system refuses, which no test depends on.
        let _ = run("ip", &["netns", "delete", &self.name]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("no {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
    Ok(())
}
