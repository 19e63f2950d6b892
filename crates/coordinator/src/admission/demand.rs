use tokio::time::Instant;

/// What a request asks of the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand {
    /// Generations side by side.
    pub(crate) sequences: u32,
    /// What they are expected to take.
    pub(crate) core_iterations: u64,
    /// The higher goes first.
    pub(crate) priority: i32,
    /// Until when it may wait.
    pub(crate) deadline: Option<Instant>,
}
