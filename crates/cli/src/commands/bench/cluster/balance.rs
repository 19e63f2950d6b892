//! How evenly the coordinator spreads work whose size nobody knows before.

use std::fmt::{self, Display, Formatter};

use anyhow::Result;
use serde::Serialize;

use super::clients::Way;
use super::closed_loop::{self, Answer};
use super::requests::{DEPTH, PROMPT, adaptive};
use super::setup::Cluster;

/// Requests for each worker.
const REQUESTS: usize = 10;
/// Tokens of a request at most.
const MOST_TOKENS: u64 = 8;

/// Core iterations of the workers.
#[derive(Debug, Serialize)]
pub(super) struct Balance {
    requests: usize,
    mean_core_iterations: f64,
    /// Of the worker that did most, over the mean.
    largest_over_mean: f64,
    /// The same, had the same requests been sent to workers drawn at random.
    random_largest_over_mean: f64,
}

/// Sends requests of 1 to 8 tokens at depths that are drawn, as many at once as there are workers.
pub(super) async fn measure(cluster: &Cluster, workers: usize) -> Result<Balance> {
    let requests = workers * REQUESTS;
    let next = move |index| {
        let tokens = 1 + mixed(index) % MOST_TOKENS;
        (index < requests).then(|| adaptive(index, tokens as u32))
    };
    let before = done(cluster).await?;
    let answers = closed_loop::run(&cluster.clients, (Way::Coordinator, workers), next).await?;
    let after = done(cluster).await?;
    let done = after.iter().zip(before).map(|(after, before)| after - before).collect::<Vec<_>>();
    Ok(Balance {
        requests,
        mean_core_iterations: done.iter().sum::<u64>() as f64 / workers as f64,
        largest_over_mean: largest_over_mean(&done),
        random_largest_over_mean: largest_over_mean(&at_random(&answers, workers)),
    })
}

/// Core iterations of each worker since it began.
async fn done(cluster: &Cluster) -> Result<Vec<u64>> {
    let loads = cluster.clients.loads().await?;
    Ok(loads.into_iter().map(|load| load.core_rows_total).collect())
}

/// What each worker would have done.
fn at_random(answers: &[Answer], workers: usize) -> Vec<u64> {
    let mut done = vec![0; workers];
    for Answer { index, tokens, .. } in answers {
        let prompt = (PROMPT as u64 - 1) * u64::from(DEPTH);
        let tokens: u64 = tokens.iter().map(|token| u64::from(token.depth)).sum();
        done[(mixed(index + answers.len()) % workers as u64) as usize] += prompt + tokens;
    }
    done
}

fn largest_over_mean(done: &[u64]) -> f64 {
    let largest = done.iter().max().copied().unwrap_or_default();
    largest as f64 * done.len() as f64 / done.iter().sum::<u64>() as f64
}

/// A number that looks drawn: the finalizer of SplitMix64.
fn mixed(index: usize) -> u64 {
    let mut z = (index as u64).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Display for Balance {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { requests, mean_core_iterations, largest_over_mean, random_largest_over_mean } = self;
        write!(
            formatter,
            "balance of {requests} requests: largest worker {largest_over_mean:.2} times the mean of \
             {mean_core_iterations:.0} core iterations; at random {random_largest_over_mean:.2}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_work_is_one_and_all_at_one_worker_as_many_as_there_are() {
        assert_eq!(largest_over_mean(&[5, 5, 5]), 1.0);
        assert_eq!(largest_over_mean(&[9, 0, 0]), 3.0);
    }
}
