//! What one key may use: sequences at once, requests and tokens per minute.
//!
//! Tokens are charged once they are known, so a key can go below zero; then it waits until the minute's rate has paid
//! that back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics;

const MINUTE: Duration = Duration::from_secs(60);
/// When a place may have become free; nobody can know.
const PLACE_WAIT: Duration = Duration::from_secs(1);

/// What a key may use; `None`: as much as the server has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyLimits {
    /// Sequences at once; a request counts one for each of its prompts and choices.
    pub(crate) max_concurrent_requests: Option<u32>,
    pub(crate) requests_per_minute: Option<u32>,
    /// Prompt and generated tokens.
    pub(crate) tokens_per_minute: Option<u32>,
    pub(crate) priority_max: Option<i32>,
    /// Jobs that have not ended.
    pub(crate) max_open_jobs: Option<u32>,
}

/// Why a key's request has to wait, or cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OverLimit {
    /// It fits after `retry_after`.
    Later { message: String, retry_after: Duration },
    /// It never fits; which limit it is over.
    Never { limit: String },
}

/// A key's use of its limits. Outlives a reload of the keys.
#[derive(Debug)]
pub(crate) struct Account {
    name: Arc<str>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limits: KeyLimits,
    running: u32,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

/// Fills by `per_minute` each minute, up to as much.
#[derive(Debug)]
struct Bucket {
    per_minute: f64,
    level: f64,
    filled: Instant,
}

/// Sequences of a key that count until this is dropped, and the account that their tokens are charged to.
#[derive(Debug)]
pub(crate) struct Allowance {
    account: Arc<Account>,
    sequences: u32,
}

impl Account {
    pub(super) fn new(name: &str, limits: KeyLimits) -> Self {
        metrics::known_key(name);
        let requests = limits.requests_per_minute.map(Bucket::full);
        let tokens = limits.tokens_per_minute.map(Bucket::full);
        Self { name: name.into(), state: Mutex::new(State { limits, running: 0, requests, tokens }) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn limits(&self) -> KeyLimits {
        self.state().limits.clone()
    }

    /// Takes over other limits. What was used stays used, where the limit itself stays.
    pub(super) fn change(&self, limits: KeyLimits) {
        let mut state = self.state();
        if state.limits.requests_per_minute != limits.requests_per_minute {
            state.requests = limits.requests_per_minute.map(Bucket::full);
        }
        if state.limits.tokens_per_minute != limits.tokens_per_minute {
            state.tokens = limits.tokens_per_minute.map(Bucket::full);
        }
        state.limits = limits;
    }

    /// Counts one request of `sequences`, unless it is over a limit; then nothing is counted.
    pub(super) fn admit(self: &Arc<Self>, sequences: u32) -> Result<Allowance, OverLimit> {
        let admitted = self.state().admit(&self.name, sequences);
        admitted
            .inspect_err(|(limit, _)| metrics::key_limited(&self.name, limit))
            .map_err(|(_, over)| over)?;
        metrics::key_request(&self.name);
        Ok(Allowance { account: Arc::clone(self), sequences })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The error comes with the name of the limit.
    fn admit(&mut self, name: &str, sequences: u32) -> Result<(), (&'static str, OverLimit)> {
        if let Some(limit) = self.limits.max_concurrent_requests {
            if sequences > limit {
                let limit = format!("the limit of {limit} of API key '{name}' (max_concurrent_requests)");
                return Err(("concurrency", OverLimit::Never { limit }));
            }
            if self.running + sequences > limit {
                let message = format!(
                    "API key '{name}' runs {} of its {limit} concurrent requests: wait for one to end",
                    self.running
                );
                return Err(("concurrency", OverLimit::Later { message, retry_after: PLACE_WAIT }));
            }
        }
        if let Some(retry_after) = self.tokens.as_mut().and_then(Bucket::wait) {
            let limit = self.limits.tokens_per_minute.unwrap_or_default();
            return Err(("tokens", later(name, limit, "tokens", retry_after)));
        }
        if let Some(requests) = &mut self.requests {
            if let Some(retry_after) = requests.wait() {
                let limit = self.limits.requests_per_minute.unwrap_or_default();
                return Err(("requests", later(name, limit, "requests", retry_after)));
            }
            requests.level -= 1.0;
        }
        self.running += sequences;
        Ok(())
    }
}

fn later(name: &str, limit: u32, what: &str, retry_after: Duration) -> OverLimit {
    let seconds = retry_after.as_secs_f64();
    let message = format!("API key '{name}' used its {limit} {what} per minute: try again in {seconds:.1} s");
    OverLimit::Later { message, retry_after }
}

impl Bucket {
    fn full(per_minute: u32) -> Self {
        let per_minute = f64::from(per_minute);
        Self { per_minute, level: per_minute, filled: Instant::now() }
    }

    /// How long until there is one; `None` if there is.
    fn wait(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let filled = self.per_minute * (now - self.filled).as_secs_f64() / MINUTE.as_secs_f64();
        self.level = (self.level + filled).min(self.per_minute);
        self.filled = now;
        // A little less than one is one: sums of many small parts are not exact.
        let lacking = 1.0 - 1e-6 - self.level;
        (lacking > 0.0).then(|| MINUTE.mul_f64((1.0 - self.level) / self.per_minute))
    }
}

impl Allowance {
    /// Charges what a sequence used.
    pub(crate) fn charge(&self, tokens: u64) {
        metrics::key_tokens(&self.account.name, tokens);
        if let Some(bucket) = &mut self.account.state().tokens {
            bucket.level -= tokens as f64;
        }
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        self.account.state().running -= self.sequences;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn account(limits: KeyLimits) -> Arc<Account> {
        Arc::new(Account::new("team", limits))
    }

    fn retry_after(result: Result<Allowance, OverLimit>) -> Duration {
        match result.unwrap_err() {
            OverLimit::Later { retry_after, .. } => retry_after,
            never @ OverLimit::Never { .. } => panic!("{never:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_over_the_rate_is_taken_after_exactly_the_wait_it_was_told() {
        let account = account(KeyLimits { requests_per_minute: Some(4), ..KeyLimits::default() });
        for _ in 0..4 {
            account.admit(1).unwrap();
        }
        let wait = retry_after(account.admit(1));
        assert_eq!(wait, Duration::from_secs(15));
        advance(wait - Duration::from_millis(10)).await;
        assert!(retry_after(account.admit(1)) <= Duration::from_millis(11));
        advance(Duration::from_millis(10)).await;
        account.admit(1).unwrap();
        account.admit(1).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_key_saves_up_one_minute_and_no_more() {
        let account = account(KeyLimits { requests_per_minute: Some(2), ..KeyLimits::default() });
        advance(MINUTE * 60).await;
        account.admit(1).unwrap();
        account.admit(1).unwrap();
        account.admit(1).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_paid_back_at_their_rate() {
        let account = account(KeyLimits { tokens_per_minute: Some(60), ..KeyLimits::default() });
        account.admit(1).unwrap().charge(89);
        // 29 below zero, and one more to begin.
        assert_eq!(retry_after(account.admit(1)), Duration::from_secs(30));
        advance(Duration::from_secs(30)).await;
        account.admit(1).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn sequences_count_until_the_allowance_is_dropped() {
        let account = account(KeyLimits { max_concurrent_requests: Some(3), ..KeyLimits::default() });
        let two = account.admit(2).unwrap();
        assert_eq!(retry_after(account.admit(2)), PLACE_WAIT);
        let one = account.admit(1).unwrap();
        drop(two);
        let _two = account.admit(2).unwrap();
        drop(one);
        let never = account.admit(4).unwrap_err();
        assert!(matches!(&never, OverLimit::Never { limit } if limit.contains("limit of 3")), "{never:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_request_uses_nothing() {
        let limits = KeyLimits {
            max_concurrent_requests: Some(1),
            requests_per_minute: Some(2),
            ..KeyLimits::default()
        };
        let account = account(limits);
        let first = account.admit(1).unwrap();
        account.admit(1).unwrap_err();
        drop(first);
        drop(account.admit(1).unwrap());
        account.admit(1).unwrap_err();
        assert_eq!(account.state().running, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn other_limits_leave_what_was_used_under_the_same_ones() {
        let limits = KeyLimits { requests_per_minute: Some(1), ..KeyLimits::default() };
        let account = account(limits.clone());
        account.admit(1).unwrap();
        account.change(KeyLimits { tokens_per_minute: Some(5), ..limits });
        account.admit(1).unwrap_err();
        account.change(KeyLimits::default());
        account.admit(1).unwrap();
    }
}
