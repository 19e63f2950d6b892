//! What the coordinator takes when idle, and what each stream adds.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tokio::time::sleep;

use super::clients::Way;
use super::process_use::{processor_time, resident_bytes};
use super::setup::Cluster;
use super::streams::{Plan, Streams};

/// How long the idle coordinator is looked at.
const IDLE: Duration = Duration::from_secs(2);

/// Of the coordinator's process; nothing where the system does not say.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    /// Part of a core that it takes without requests, for the workers' heartbeats.
    idle_cores: Option<f64>,
    idle_bytes: Option<u64>,
    /// With all streams under way, for the first time.
    busy_bytes: Option<u64>,
    bytes_per_stream: Option<f64>,
}

pub(super) async fn measure(cluster: &Cluster, plan: Plan) -> Result<Memory> {
    let before = processor_time(cluster.process);
    sleep(IDLE).await;
    let taken = before.and_then(|before| Some(processor_time(cluster.process)? - before));
    let idle_bytes = resident_bytes(cluster.process);
    let streams = Streams::start(&cluster.clients, Way::Coordinator, plan);
    streams.middle().await;
    let busy_bytes = resident_bytes(cluster.process);
    streams.end().await?.whole()?;
    let per_stream = |(busy, idle): (u64, u64)| (busy as f64 - idle as f64) / plan.streams as f64;
    Ok(Memory {
        idle_cores: taken.map(|taken| taken.as_secs_f64() / IDLE.as_secs_f64()),
        idle_bytes,
        busy_bytes,
        bytes_per_stream: busy_bytes.zip(idle_bytes).map(per_stream),
    })
}

impl Display for Memory {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { idle_cores, idle_bytes, busy_bytes, bytes_per_stream } = self;
        let mib = |bytes: &Option<u64>| bytes.map_or(f64::NAN, |bytes| bytes as f64 / f64::from(1 << 20));
        write!(
            formatter,
            "coordinator, idle: {:.2} cores, {:.1} MiB; with all streams {:.1} MiB, {:.1} KiB a stream",
            idle_cores.unwrap_or(f64::NAN),
            mib(idle_bytes),
            mib(busy_bytes),
            bytes_per_stream.unwrap_or(f64::NAN) / 1024.0
        )
    }
}
