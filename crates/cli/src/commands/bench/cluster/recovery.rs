//! How long streams pause whose workers are killed, and whether they notice anything else.

use std::fmt::{self, Display, Formatter};

use anyhow::{Result, ensure};
use serde::Serialize;
use tokio::time::Instant;

use super::clients::Way;
use super::quantiles::Quantiles;
use super::setup::Cluster;
use super::streams::{Ended, Plan, Stream, Streams};

/// After a tenth of the workers was killed at once.
#[derive(Debug, Serialize)]
pub(super) struct Recovery {
    workers_killed: usize,
    /// Streams that ran at them.
    streams_moved: usize,
    /// From the kill to the next token of these.
    pause: Quantiles,
    /// What the pause holds of the workers' own time: the replay of what was known, and the token.
    nominal_ms: f64,
    streams_failed: usize,
    /// Answers unlike those of workers that nothing happened to.
    answers_changed: usize,
}

/// Kills a tenth of the workers while all streams run. Answers are compared with those of a run without that.
pub(super) async fn measure(cluster: &mut Cluster, plan: Plan) -> Result<Recovery> {
    let undisturbed = Streams::start(&cluster.clients, Way::Direct, plan).end().await?.whole()?;
    let streams = Streams::start(&cluster.clients, Way::Coordinator, plan);
    streams.middle().await;
    let workers_killed = cluster.doomed.addresses.len();
    let loads = cluster.clients.loads().await?;
    let doomed = &loads[loads.len() - workers_killed..];
    let streams_moved = doomed.iter().map(|load| load.running as usize).sum();
    let killed = Instant::now();
    cluster.doomed.kill();
    let ended = streams.end().await?;
    for error in ended.streams.iter().filter_map(|stream| stream.result.as_ref().err()).take(3) {
        eprintln!("a stream failed: {error:#}");
    }
    Ok(Recovery {
        workers_killed,
        streams_moved,
        pause: Quantiles::of(longest_pauses(&ended, killed, streams_moved)),
        nominal_ms: 2e3 * plan.interval.as_secs_f64(),
        streams_failed: ended.streams.iter().filter(|stream| stream.result.is_err()).count(),
        answers_changed: changed(&ended, &undisturbed),
    })
}

/// The longest times from the kill to a stream's next token, as many as streams were moved: a client is not told where its stream
/// runs, but a replay alone takes longer than others wait.
fn longest_pauses(ended: &Ended, killed: Instant, moved: usize) -> Vec<f64> {
    let next = |stream: &Stream| stream.tokens.iter().map(|token| token.at).find(|at| *at > killed);
    let pause = |stream: &Stream| next(stream).map(|at| (at - killed).as_secs_f64() * 1e3);
    let mut pauses: Vec<f64> = ended.streams.iter().filter_map(pause).collect();
    pauses.sort_by(|a, b| b.total_cmp(a));
    pauses.truncate(moved);
    pauses
}

fn changed(ended: &Ended, undisturbed: &Ended) -> usize {
    let pairs = ended.streams.iter().zip(&undisturbed.streams);
    pairs.filter(|(stream, other)| stream.answer() != other.answer()).count()
}

impl Recovery {
    /// Nothing accepted may be lost or changed.
    pub(super) fn check(&self) -> Result<()> {
        let Self { streams_failed, answers_changed, .. } = self;
        ensure!(
            *streams_failed == 0 && *answers_changed == 0,
            "{streams_failed} streams failed and {answers_changed} answers changed when workers were killed"
        );
        Ok(())
    }
}

impl Display for Recovery {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { workers_killed, streams_moved, pause, nominal_ms, streams_failed, answers_changed } = self;
        write!(
            formatter,
            "{workers_killed} workers killed: {streams_moved} streams moved, next token after {pause} ms, of which \
             {nominal_ms:.0} are replay and token; {streams_failed} failed, {answers_changed} answers changed"
        )
    }
}
