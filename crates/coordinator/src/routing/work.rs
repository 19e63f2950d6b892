use std::collections::HashMap;

/// Core iterations that a request still takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    /// Of the prompt and of tokens to be replayed; none of them once a token came.
    known: u64,
    /// Still to be generated, at most.
    tokens: u32,
    expected_depth: f64,
    max_depth: u32,
}

impl Estimate {
    /// `known`: core iterations until the first new token can come; then up to `tokens` of them.
    pub(crate) fn new(known: u64, tokens: u32, expected_depth: f64, max_depth: u32) -> Self {
        Self { known, tokens, expected_depth, max_depth }
    }

    /// As many as are likely.
    pub(crate) fn expected(&self) -> u64 {
        self.known.saturating_add((f64::from(self.tokens) * self.expected_depth).ceil() as u64)
    }

    /// As many as are possible.
    fn most(&self) -> u64 {
        self.known.saturating_add(u64::from(self.tokens) * u64::from(self.max_depth))
    }

    fn token(&mut self) {
        self.known = 0;
        self.tokens = self.tokens.saturating_sub(1);
    }
}

/// What one worker owes: to this coordinator, which knows it token by token, and to others, as far as it reports.
#[derive(Debug, Default)]
pub(crate) struct Work {
    requests: HashMap<u64, Estimate>,
    expected: u64,
    most: u64,
    others: u64,
    next: u64,
}

impl Work {
    /// Adds a request; returns the ticket under which it ends.
    pub(crate) fn begin(&mut self, estimate: Estimate) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.add(ticket, estimate);
        ticket
    }

    /// The request got a token.
    pub(crate) fn token(&mut self, ticket: u64) {
        if let Some(mut estimate) = self.take(ticket) {
            estimate.token();
            self.add(ticket, estimate);
        }
    }

    /// Takes a request off.
    pub(crate) fn end(&mut self, ticket: u64) {
        self.take(ticket);
    }

    /// Takes a report of the core iterations owed at most to everyone. What exceeds that of our own requests is owed to
    /// other coordinators.
    pub(crate) fn report(&mut self, queued_core_iterations: u64) {
        self.others = queued_core_iterations.saturating_sub(self.most);
    }

    /// Core iterations owed, as far as is known.
    pub(crate) fn owed(&self) -> u64 {
        self.expected.saturating_add(self.others)
    }

    /// Core iterations expected of our own requests.
    pub(crate) fn expected(&self) -> u64 {
        self.expected
    }

    /// Our own requests under way.
    pub(crate) fn requests(&self) -> usize {
        self.requests.len()
    }

    fn add(&mut self, ticket: u64, estimate: Estimate) {
        self.expected += estimate.expected();
        self.most += estimate.most();
        self.requests.insert(ticket, estimate);
    }

    fn take(&mut self, ticket: u64) -> Option<Estimate> {
        let estimate = self.requests.remove(&ticket)?;
        self.expected -= estimate.expected();
        self.most -= estimate.most();
        Some(estimate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shrinks_with_every_token_and_ends_with_the_request() {
        let mut work = Work::default();
        let ticket = work.begin(Estimate::new(160, 10, 2.5, 16));
        assert_eq!(work.owed(), 160 + 25);
        work.token(ticket);
        assert_eq!(work.owed(), 23, "the prompt is done, and nine tokens are left");
        for _ in 0..20 {
            work.token(ticket);
        }
        assert_eq!((work.owed(), work.requests()), (0, 1));
        work.end(ticket);
        work.end(ticket);
        assert_eq!((work.owed(), work.requests()), (0, 0));
    }

    #[test]
    fn what_others_sent_counts_and_our_own_is_not_counted_twice() {
        let mut work = Work::default();
        let ticket = work.begin(Estimate::new(0, 10, 2.0, 16));
        work.report(160);
        assert_eq!(work.owed(), 20, "the report is ours alone");
        work.report(1160);
        assert_eq!((work.owed(), work.expected()), (1020, 20));
        work.end(ticket);
        assert_eq!(work.owed(), 1000);
        work.report(0);
        assert_eq!(work.owed(), 0);
    }
}
