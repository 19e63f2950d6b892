//! Requests one after the other on each of several lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use futures::future::try_join_all;
use tokio::time::Instant;
use windlass_proto::v1::Token;

use super::clients::{Clients, Request, Way};

/// A whole answer.
pub(super) struct Answer {
    pub(super) index: usize,
    pub(super) tokens: Vec<Token>,
    pub(super) took_ms: f64,
}

/// Asks on so many lines at once; each sends its next request when the last was answered, until `next` has none more. Requests are
/// counted from 0.
pub(super) async fn run(
    clients: &Clients,
    (way, lines): (Way, usize),
    next: impl Fn(usize) -> Option<Request> + Clone + Send + 'static,
) -> Result<Vec<Answer>> {
    let count = Arc::new(AtomicUsize::new(0));
    let line = |_| {
        let (clients, count, next) = (clients.clone(), Arc::clone(&count), next.clone());
        tokio::spawn(async move {
            let mut answers = Vec::new();
            loop {
                let index = count.fetch_add(1, Ordering::Relaxed);
                let Some(request) = next(index) else { return anyhow::Ok(answers) };
                let sent = Instant::now();
                let tokens = clients.generate(way, index, request).await?.rest().await?;
                answers.push(Answer { index, tokens, took_ms: sent.elapsed().as_secs_f64() * 1e3 });
            }
        })
    };
    let lines = try_join_all((0..lines).map(line)).await?;
    Ok(lines.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}
