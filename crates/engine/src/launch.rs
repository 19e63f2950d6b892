//! What ran in a tick, and for how long.

use std::time::Duration;

/// A part of the tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Embedding and prelude layers of the rows that enter.
    Prelude,
    /// One core iteration of every row in flight.
    Core,
    /// Coda layers of the rows that leave, are probed or guess, and the head.
    Coda,
    /// Drawing tokens from logits.
    Sample,
}

/// One launch that was collected in the last tick. Times are the engine's clock's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchRecord {
    /// What ran.
    pub phase: Phase,
    /// Rows it ran on.
    pub rows: u32,
    /// When it began.
    pub start: Duration,
    /// When its results were there; where others were under way beside it, when they would have been there without these.
    pub end: Duration,
}
