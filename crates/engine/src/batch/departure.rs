//! Rows on their way through the coda, and what they want of the head.

use crate::lane::Span;
use crate::request::Request;

/// Rows on their way through the coda.
#[derive(Debug, Clone, Copy)]
pub(super) struct Departure {
    /// Index of the lane; none once that is gone.
    pub(super) lane: Option<usize>,
    /// Its first position, and how many.
    pub(super) from: usize,
    pub(super) count: usize,
    /// What the last position's row needs; others only leave coda K/V behind.
    pub(super) wants: Wants,
    /// Whether that is only a guess, for a draft, and the row goes on.
    pub(super) is_guess: bool,
}

impl Departure {
    /// Its rows, before it is under way.
    pub(super) fn span(&self) -> Span {
        let lane = self.lane.expect("who is gone does not depart");
        Span { lane, from: self.from, count: self.count }
    }
}

/// What a row needs of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    Nothing,
    /// The most likely token: its request looks at nothing else.
    MostLikely,
    /// A token drawn where the logits are.
    Drawn,
    Logits,
}

impl Wants {
    /// What the next token of a request comes from; `draws`: one can be drawn where the logits are.
    pub(super) fn for_token(request: &Request, draws: bool) -> Self {
        if request.logprobs.is_some() || request.report_logits {
            Self::Logits
        } else if request.sampling.is_plainly_greedy() {
            Self::MostLikely
        } else if draws {
            Self::Drawn
        } else {
            Self::Logits
        }
    }

    /// What a guess of a request's token comes from.
    pub(super) fn for_guess(request: &Request, draws: bool) -> Self {
        if draws && !request.sampling.is_plainly_greedy() { Self::Drawn } else { Self::MostLikely }
    }
}
