//! Many streams at once, each token with the moment it came.

use std::time::Duration;

use anyhow::Result;
use futures::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::clients::{Clients, Way};
use super::requests::{DEPTH, fixed};

/// How many streams, and how they generate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) streams: usize,
    /// Between two tokens of a stream, if nothing took time but the workers.
    pub(super) interval: Duration,
    /// Tokens of each stream.
    pub(super) tokens: u32,
}

/// Streams under way.
pub(super) struct Streams {
    plan: Plan,
    begin: Instant,
    tasks: Vec<JoinHandle<Stream>>,
}

/// A stream that ended.
pub(super) struct Stream {
    sent: Instant,
    pub(super) tokens: Vec<Arrival>,
    pub(super) result: Result<()>,
}

/// One token.
pub(super) struct Arrival {
    pub(super) at: Instant,
    pub(super) id: u32,
    pub(super) depth: u32,
}

/// Milliseconds that tokens were late, of those that came while all streams ran.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    /// The time since the token before, above the nominal interval.
    pub(super) interval_ms: Vec<f64>,
    /// The time since the request was sent, above that of as many intervals.
    pub(super) since_request_ms: Vec<f64>,
}

impl Plan {
    /// Streams begin one after the other over this time, so that their tokens are spread evenly.
    fn ramp(&self) -> Duration {
        self.length() / 5
    }

    /// Nominal time from a stream's begin to its end.
    fn length(&self) -> Duration {
        self.interval * self.tokens
    }

    /// Tokens of all streams together, per second.
    pub(super) fn tokens_per_second(&self) -> f64 {
        self.streams as f64 / self.interval.as_secs_f64()
    }
}

impl Streams {
    pub(super) fn start(clients: &Clients, way: Way, plan: Plan) -> Self {
        let begin = Instant::now();
        let stream = |index: usize| {
            let start = begin + plan.ramp() * index as u32 / plan.streams as u32;
            let clients = clients.clone();
            tokio::spawn(async move {
                sleep_until(start).await;
                Stream::run(&clients, way, index, plan.tokens).await
            })
        };
        Self { plan, begin, tasks: (0..plan.streams).map(stream).collect() }
    }

    /// Waits until the middle of the time in which all streams run.
    pub(super) async fn middle(&self) {
        sleep_until(self.begin + (self.plan.ramp() + self.plan.length()) / 2).await;
    }

    /// Waits for all of them.
    pub(super) async fn end(self) -> Result<Ended> {
        let streams = join_all(self.tasks).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(Ended { plan: self.plan, begin: self.begin, streams })
    }
}

/// Streams that ended, in order of their indices.
pub(super) struct Ended {
    plan: Plan,
    begin: Instant,
    pub(super) streams: Vec<Stream>,
}

impl Ended {
    /// The same, or the first error of a stream.
    pub(super) fn whole(mut self) -> Result<Self> {
        self.streams.iter_mut().try_for_each(|stream| std::mem::replace(&mut stream.result, Ok(())))?;
        Ok(self)
    }

    /// How late tokens were.
    pub(super) fn lateness(&self) -> Lateness {
        let Plan { interval, .. } = self.plan;
        let counts = self.begin + self.plan.ramp()..self.begin + self.plan.length();
        let mut lateness = Lateness::default();
        for stream in &self.streams {
            for (index, token) in stream.tokens.iter().enumerate().skip(1) {
                if counts.contains(&token.at) {
                    let since_last = token.at - stream.tokens[index - 1].at;
                    lateness.interval_ms.push(excess_ms(since_last, interval));
                    // The prompt takes as long as a token.
                    let nominal = interval * (index as u32 + 1);
                    lateness.since_request_ms.push(excess_ms(token.at - stream.sent, nominal));
                }
            }
        }
        lateness
    }
}

impl Stream {
    async fn run(clients: &Clients, way: Way, index: usize, tokens: u32) -> Self {
        let mut stream =
            Self { sent: Instant::now(), tokens: Vec::with_capacity(tokens as usize), result: Ok(()) };
        stream.result = stream.read(clients, way, index, tokens).await;
        stream
    }

    async fn read(&mut self, clients: &Clients, way: Way, index: usize, tokens: u32) -> Result<()> {
        let mut answer = clients.generate(way, index, fixed(index, tokens, DEPTH)).await?;
        while let Some(token) = answer.next().await? {
            self.tokens.push(Arrival { at: Instant::now(), id: token.id, depth: token.depth });
        }
        Ok(())
    }

    /// Token ids and depths.
    pub(super) fn answer(&self) -> Vec<(u32, u32)> {
        self.tokens.iter().map(|token| (token.id, token.depth)).collect()
    }
}

/// Milliseconds that `time` is above `nominal`; negative below.
fn excess_ms(time: Duration, nominal: Duration) -> f64 {
    (time.as_secs_f64() - nominal.as_secs_f64()) * 1e3
}
