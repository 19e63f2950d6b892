//! How much later tokens come through the coordinator than straight from the workers.

use std::fmt::{self, Display, Formatter};

use anyhow::Result;
use serde::Serialize;

use super::clients::Way;
use super::process_use::processor_time;
use super::quantiles::{Quantiles, median};
use super::setup::Cluster;
use super::streams::{Lateness, Plan, Streams};

/// Medians over rounds.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    tokens_per_second: f64,
    direct: Turn,
    coordinator: Turn,
    /// The difference of the two within each round.
    added: Turn,
    /// Of the coordinator's processor time, heartbeats included; nothing where the system does not say.
    cpu_us_per_token: Option<f64>,
    rounds: Vec<Round>,
}

/// Both ways, one after the other.
#[derive(Debug, Serialize)]
struct Round {
    direct: Turn,
    coordinator: Turn,
    cpu_us_per_token: Option<f64>,
}

/// How late tokens came in one turn.
#[derive(Debug, Clone, Copy, Serialize)]
struct Turn {
    /// Since the token before, above the nominal interval.
    interval: Quantiles,
    /// Since the request was sent, above the nominal time.
    since_request: Quantiles,
}

/// Takes turns, so many rounds; the first way changes from round to round.
pub(super) async fn measure(cluster: &Cluster, plan: Plan, rounds: u32) -> Result<Latency> {
    let mut done = Vec::new();
    for round in 0..rounds {
        let early = if round % 2 == 0 { Some(turn(cluster, Way::Direct, plan).await?) } else { None };
        let before = processor_time(cluster.process);
        let coordinator = turn(cluster, Way::Coordinator, plan).await?;
        let taken = before.and_then(|before| Some(processor_time(cluster.process)? - before));
        let direct = match early {
            Some(direct) => direct,
            None => turn(cluster, Way::Direct, plan).await?,
        };
        let tokens = plan.streams as f64 * f64::from(plan.tokens);
        let cpu_us_per_token = taken.map(|taken| taken.as_secs_f64() * 1e6 / tokens);
        done.push(Round { direct, coordinator, cpu_us_per_token });
    }
    Ok(Latency::new(plan, done))
}

async fn turn(cluster: &Cluster, way: Way, plan: Plan) -> Result<Turn> {
    let ended = Streams::start(&cluster.clients, way, plan).end().await?.whole()?;
    let Lateness { interval_ms, since_request_ms } = ended.lateness();
    Ok(Turn { interval: Quantiles::of(interval_ms), since_request: Quantiles::of(since_request_ms) })
}

impl Latency {
    fn new(plan: Plan, rounds: Vec<Round>) -> Self {
        let medians =
            |turn: &dyn Fn(&Round) -> Turn| Turn::median(&rounds.iter().map(turn).collect::<Vec<_>>());
        let cpu: Option<Vec<f64>> = rounds.iter().map(|round| round.cpu_us_per_token).collect();
        Self {
            tokens_per_second: plan.tokens_per_second(),
            direct: medians(&|round| round.direct),
            coordinator: medians(&|round| round.coordinator),
            added: medians(&|round| round.coordinator.above(round.direct)),
            cpu_us_per_token: cpu.map(|cpu| median(cpu.into_iter())),
            rounds,
        }
    }
}

impl Turn {
    fn above(self, other: Self) -> Self {
        Self {
            interval: self.interval.above(other.interval),
            since_request: self.since_request.above(other.since_request),
        }
    }

    fn median(turns: &[Self]) -> Self {
        Self {
            interval: Quantiles::median(turns.iter().map(|turn| turn.interval)),
            since_request: Quantiles::median(turns.iter().map(|turn| turn.since_request)),
        }
    }
}

impl Display for Latency {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "lateness at {:.0} tokens/s, ms, p50 / p99 / max; coordinator {:.0} µs of a core per token",
            self.tokens_per_second,
            self.cpu_us_per_token.unwrap_or(f64::NAN)
        )?;
        for (name, turn) in
            [("direct", &self.direct), ("coordinator", &self.coordinator), ("added", &self.added)]
        {
            let Turn { interval, since_request } = turn;
            writeln!(formatter, "  {name:<12} interval {interval}   since the request {since_request}")?;
        }
        for (index, Round { direct, coordinator, .. }) in self.rounds.iter().enumerate() {
            let added = coordinator.above(*direct);
            let Turn { interval, since_request } = added;
            writeln!(
                formatter,
                "  round {}: added interval {interval}   since the request {since_request}",
                index + 1
            )?;
        }
        Ok(())
    }
}
