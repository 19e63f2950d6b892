//! Rows that decode: the position of a lane's last token, and drafts behind it.
//!
//! A *draft* is a position that reads a token which is only guessed: the one that would follow if the position before it
//! stopped now. It iterates a few iterations behind that position. Where every depth has its own K/V slot it finds
//! there what it would have found later, so with the right token it computes what it would have, to the same bits; with another it
//! is given up.

use windlass_model::Depth;

use crate::exit::Exit;
use crate::sequence::Sequence;

/// A position that decodes.
#[derive(Debug)]
pub(crate) struct Row {
    /// What it reads: the last token, or of a draft what was guessed.
    pub(crate) token: u32,
    /// Iterations completed, with the one that is under way.
    pub(crate) depth: Depth,
    /// When it stops.
    pub(crate) exit: Exit,
    /// What it does.
    pub(crate) state: RowState,
    /// The token behind it, if it was guessed.
    guess: Option<Guess>,
    /// The depth at which it was guessed last, or is now; 0 if it was not.
    pub(crate) guessed_at: Depth,
    /// Whether it is in the coda for such a guess.
    pub(crate) is_guessing: bool,
}

/// What the token behind a row was taken for.
#[derive(Debug, Clone, Copy)]
struct Guess {
    token: u32,
    /// The depth of the last guess.
    at: Depth,
    /// The depth of the last guess of another token; 0 if there was none.
    others_until: Depth,
}

/// What a row does that decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowState {
    /// It takes part in each core launch.
    Iterates,
    /// It is in the coda, and iterates on if its logits say so.
    Probed,
    /// It is done iterating, and has waited for the coda so many ticks; a draft waits for those before it first.
    Waiting(u32),
    /// It is in the coda, and leaves.
    Departed,
}

impl Row {
    /// The `index`-th row of a sequence, that has yet to begin. `vocabulary`: length of a row of logits.
    pub(crate) fn new(sequence: &Sequence, index: usize, token: u32, vocabulary: usize) -> Self {
        let recorded = sequence.request.recorded_depths.as_ref();
        let recorded = recorded.and_then(|depths| depths.get(sequence.generated() + index)).copied();
        Self {
            token,
            depth: 0,
            exit: Exit::new(&sequence.request, recorded, vocabulary),
            state: RowState::Iterates,
            guess: None,
            guessed_at: 0,
            is_guessing: false,
        }
    }

    /// Takes a guess of the token behind it.
    pub(crate) fn take_guess(&mut self, token: u32) {
        self.is_guessing = false;
        let others_until = self.others_until(token).unwrap_or(0);
        self.guess = Some(Guess { token, at: self.guessed_at, others_until });
    }

    /// The depth at which another token than `token` was guessed last, 0 if none was; none if nothing was guessed.
    pub(crate) fn others_until(&self, token: u32) -> Option<Depth> {
        self.guess.map(|guess| if guess.token == token { guess.others_until } else { guess.at })
    }

    /// Whether it takes part in the next core launch.
    pub(crate) fn iterates(&self) -> bool {
        self.state == RowState::Iterates
    }

    /// Whether it iterates, or does as soon as it was probed.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self.state, RowState::Iterates | RowState::Probed)
    }
}
