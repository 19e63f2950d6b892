//! Requests of one token, as fast as they are answered.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tokio::time::Instant;

use super::clients::Way;
use super::closed_loop;
use super::quantiles::Quantiles;
use super::requests::fixed;
use super::setup::Cluster;

/// At one number of requests at once.
#[derive(Debug, Serialize)]
pub(super) struct Throughput {
    concurrency: usize,
    direct: Rate,
    coordinator: Rate,
}

#[derive(Debug, Serialize)]
struct Rate {
    requests_per_second: f64,
    /// From sending a request to its end; a tick of it is the worker's.
    latency: Quantiles,
}

pub(super) async fn measure(cluster: &Cluster, concurrency: usize, length: Duration) -> Result<Throughput> {
    let direct = rate(cluster, Way::Direct, concurrency, length).await?;
    let coordinator = rate(cluster, Way::Coordinator, concurrency, length).await?;
    Ok(Throughput { concurrency, direct, coordinator })
}

async fn rate(cluster: &Cluster, way: Way, concurrency: usize, length: Duration) -> Result<Rate> {
    let begin = Instant::now();
    let next = move |index| (begin.elapsed() < length).then(|| fixed(index, 1, 1));
    let answers = closed_loop::run(&cluster.clients, (way, concurrency), next).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let latency = Quantiles::of(answers.iter().map(|answer| answer.took_ms).collect());
    Ok(Rate { requests_per_second: answers.len() as f64 / seconds, latency })
}

impl Display for Throughput {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} requests at once:", self.concurrency)?;
        for (name, rate) in [("direct", &self.direct), ("coordinator", &self.coordinator)] {
            let Rate { requests_per_second, latency } = rate;
            write!(formatter, "  {name} {requests_per_second:.0} requests/s, {latency} ms")?;
        }
        Ok(())
    }
}
