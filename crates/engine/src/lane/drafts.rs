//! The rows of a lane that decodes: how drafts begin, what they follow, and how they end.

use windlass_model::Depth;

use super::{Grouping, Lane, Progress};
use crate::pool::Pool;
use crate::row::Row;

/// Whose turn it is behind a token that was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextRow {
    /// The draft's that had read it.
    Draft,
    /// That of a row that begins.
    New,
    /// The same, and drafts that had read another token were given up.
    NewAfterOthers,
}

impl Lane {
    /// How many drafts it has.
    pub(crate) fn drafts(&self) -> usize {
        self.rows().len().saturating_sub(1)
    }

    /// Whether the row that is so many `behind` the first can iterate, and finds what it reads of those before it: they have got further, or
    /// are done.
    pub(crate) fn may_iterate(&self, behind: usize) -> bool {
        let Some(row) = self.rows().get(behind) else { return false };
        let is_before = |before: &Row| before.depth > row.depth || !before.goes_on();
        row.iterates() && self.rows()[..behind].iter().all(is_before)
    }

    /// Whether the token behind the row of `position` may be guessed, and a draft read it.
    pub(crate) fn may_guess_behind(&self, position: usize) -> bool {
        !self.is_over && self.sequence.may_draft() && position + 1 < self.sequence.request.positions()
    }

    /// Whether the last of its rows has completed `depth` iterations, and a draft may be behind it.
    pub(crate) fn lacks_draft(&self, depth: Depth) -> bool {
        let position = self.sequence.settled() + self.drafts();
        let is_due = |row: &Row| row.depth >= depth && row.guessed_at < row.depth;
        self.rows().last().is_some_and(is_due) && self.may_guess_behind(position)
    }

    /// Begins a draft that reads `token`, behind all rows.
    pub(crate) fn draft(&mut self, token: u32, latent: u32, grouping: Grouping) {
        let Self { progress: Progress::Decode(rows), latents, sequence, .. } = self else {
            panic!("a lane that does not decode has no drafts")
        };
        rows.push(Row::new(sequence, rows.len(), token, grouping.vocabulary));
        latents.push(latent);
    }

    /// Gives up the drafts from `position` on.
    pub(crate) fn give_up_drafts(&mut self, position: usize, pool: &mut Pool) {
        let Self { progress: Progress::Decode(rows), latents, sequence, .. } = self else {
            panic!("a lane that does not decode has no drafts")
        };
        let keep = position - sequence.settled();
        assert!(keep > 0, "the last token's position is no draft");
        rows.truncate(keep);
        latents.drain(keep..).for_each(|latent| pool.release(latent));
    }

    /// Appends a generated token that took `depth` iterations; what decodes goes on with its position.
    pub(crate) fn push(
        &mut self,
        token: u32,
        depth: Depth,
        latents: &mut Pool,
        grouping: Grouping,
    ) -> NextRow {
        self.sequence.push(token, depth);
        let Self { progress: Progress::Decode(rows), latents: held, sequence, .. } = self else {
            return NextRow::New;
        };
        let next = match rows.get(1) {
            None => NextRow::New,
            Some(draft) if draft.token == token => NextRow::Draft,
            Some(_) => NextRow::NewAfterOthers,
        };
        if next == NextRow::Draft {
            rows.remove(0);
            latents.release(held.remove(0));
        } else {
            held.drain(1..).for_each(|row| latents.release(row));
            rows.clear();
            rows.push(Row::new(sequence, 0, token, grouping.vocabulary));
        }
        next
    }
}
