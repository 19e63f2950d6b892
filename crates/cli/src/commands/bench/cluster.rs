//! `windlass bench cluster`: what a coordinator costs, before workers that compute nothing.

mod balance;
mod clients;
mod closed_loop;
mod latency;
mod memory;
mod process_use;
mod quantiles;
mod recovery;
mod requests;
mod setup;
mod streams;
mod throughput;
mod workers;

use std::fmt::Display;
use std::io::{Write, stdout};
use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, value_parser};
use serde::Serialize;
use windlass_model::ModelFolder;

use requests::{DEPTH, PROMPT};
use setup::Cluster;
use streams::Plan;

/// Requests at once, in turn, for requests/s.
const CONCURRENCY: [usize; 3] = [1, 64, 512];

/// Measures a coordinator in front of many simulated workers
///
/// The coordinator is a process of its own; the workers and the clients share this one, over TCP on this machine. Measured are: memory
/// per stream; how late tokens come through the coordinator and straight from the workers, in turns; requests/s; how evenly
/// requests of random depths are spread; and how long streams pause when a tenth of the workers is killed. Fails if a stream does.
#[derive(Debug, Args)]
#[command(after_long_help = "Takes about four open files per worker: see ulimit -n.")]
pub(crate) struct ClusterArguments {
    /// Simulated workers
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(10..=20_000))]
    workers: u32,
    /// Streams at once
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(1..=100_000))]
    streams: u32,
    /// Between two tokens of a stream
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = value_parser!(u32).range(16..=60_000))]
    interval_ms: u32,
    /// Tokens of a stream
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = value_parser!(u32).range(10..=100_000))]
    tokens: u32,
    /// Times that each way is measured, in turns
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    settings: Settings,
    memory: memory::Memory,
    latency: latency::Latency,
    throughput: Vec<throughput::Throughput>,
    balance: balance::Balance,
    recovery: recovery::Recovery,
}

#[derive(Debug, Serialize)]
struct Settings {
    cores: usize,
    workers: u32,
    streams: u32,
    interval_ms: u32,
    tokens: u32,
    rounds: u32,
    /// From the coordinator's start until all workers were ready.
    ready_s: f64,
}

/// Runs the command.
pub(crate) async fn run(arguments: &ClusterArguments) -> Result<()> {
    let &ClusterArguments { workers, streams, interval_ms, tokens, rounds, json } = arguments;
    let context = ModelFolder::demo().config()?.context_length;
    let most = context - PROMPT;
    ensure!(
        tokens as usize <= most,
        "tokens is {tokens}: the simulated model's context leaves room for {most}"
    );
    let interval = Duration::from_millis(interval_ms.into());
    let plan = Plan { streams: streams as usize, interval, tokens };
    let at_once = streams.max(workers).max(CONCURRENCY[CONCURRENCY.len() - 1] as u32);
    let mut cluster = Cluster::start(workers as usize, at_once as usize, interval / DEPTH).await?;
    let settings = Settings {
        cores: available_parallelism().map_or(1, NonZero::get),
        workers,
        streams,
        interval_ms,
        tokens,
        rounds,
        ready_s: cluster.ready_after.as_secs_f64(),
    };
    let show = |part: &dyn Display| if json { Ok(()) } else { writeln!(stdout(), "{part}") };
    show(&format!("{workers} workers ready after {:.1} s, {streams} streams", settings.ready_s))?;
    let memory = memory::measure(&cluster, plan).await?;
    show(&memory)?;
    let latency = latency::measure(&cluster, plan, rounds).await?;
    show(&latency)?;
    let mut throughput = Vec::new();
    for concurrency in CONCURRENCY {
        let measured = throughput::measure(&cluster, concurrency, interval * tokens / 2).await?;
        show(&measured)?;
        throughput.push(measured);
    }
    let balance = balance::measure(&cluster, workers as usize).await?;
    show(&balance)?;
    let recovery = recovery::measure(&mut cluster, plan).await?;
    show(&recovery)?;
    cluster.stop().await?;
    let report = Report { settings, memory, latency, throughput, balance, recovery };
    if json {
        writeln!(stdout(), "{}", serde_json::to_string(&report)?)?;
    }
    report.recovery.check()
}
