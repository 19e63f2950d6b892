//! A worker whose ranks are processes.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::{Server, binary};

/// A rank other than the first. It is killed when dropped.
pub struct Rank(Child);

impl Rank {
    /// `windlass rank` with these arguments.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary("windlass")?);
        command.arg("rank").args(arguments).stdin(Stdio::null()).stderr(Stdio::piped());
        Ok(Self(command.spawn()?))
    }

    /// Sends it a signal, such as `-KILL`.
    pub fn signal(&self, signal: &str) -> Result<()> {
        crate::signal(self.0.id(), signal)
    }

    /// Waits for its end; returns whether it exited with 0, and what it said.
    pub fn wait(mut self) -> Result<(bool, String)> {
        let mut said = String::new();
        self.0.stderr.take().context("no standard error")?.read_to_string(&mut said)?;
        Ok((self.0.wait()?.success(), said))
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Rank 0 of so many on one stage, which serves as soon as the others have joined, with more arguments; it is not heard of before.
pub fn first_rank(ranks: usize, arguments: &[&str]) -> Result<(Server, String)> {
    first_of((ranks, 1), arguments)
}

fn first_of((ranks, stages): (usize, usize), arguments: &[&str]) -> Result<(Server, String)> {
    let [ranks, stages] = [ranks, stages].map(|count| count.to_string());
    let listen = ["worker", "--listen", "127.0.0.1:0", "--tp-listen", "127.0.0.1:0"];
    let fixed = [&listen[..], &["--tp", &ranks, "--stages", &stages]].concat();
    let model = ["--model", "demo", "--threads", "1"];
    let first = Server::windlass(&[&fixed[..], &model, arguments].concat())?;
    let join = first.address("listening on ")?.to_owned();
    Ok((first, join))
}

/// A worker of so many processes of the demo model, ready, with more arguments for each of them.
pub fn group(ranks: usize, arguments: &[&str]) -> Result<(Server, Vec<Rank>)> {
    group_of_stages((ranks, 1), arguments)
}

/// The same with so many ranks in each of so many stages.
pub fn group_of_stages((ranks, stages): (usize, usize), arguments: &[&str]) -> Result<(Server, Vec<Rank>)> {
    let (mut first, join) = first_of((ranks, stages), arguments)?;
    let other = |rank: usize| {
        let rank = rank.to_string();
        let fixed = ["--join", &join, "--rank", &rank, "--model", "demo", "--threads", "1"];
        Rank::start(&[&fixed[..], arguments].concat())
    };
    let others = (1..ranks * stages).map(other).collect::<Result<_>>()?;
    first.hear()?;
    Ok((first, others))
}
