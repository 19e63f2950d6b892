//! From a request to its tokens, whichever workers it takes.
//!
//! A request is told at once if no worker takes it. Once one did, it is not lost with that worker: it goes on at another,
//! which replays the prompt and the tokens that came already and continues behind them as the first would have. So each
//! token comes once, and all a client can notice is a pause.

mod attempt;
mod hedge;
mod setback;
mod stream;
mod task;

use std::time::Duration;

pub(crate) use setback::refusal;
pub(crate) use stream::TaskStream;
pub(crate) use task::Task;

/// How long and how often a request is carried on, and whether to a second worker besides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MigrationSettings {
    /// Changes of worker at most, after the first one took it.
    pub(crate) most: u32,
    /// How long it waits for a worker that takes it over.
    pub(crate) patience: Duration,
    /// How long a worker may take for the first event until a second one is asked too; `None`: as long as it likes.
    pub(crate) hedge_after: Option<Duration>,
}
