//! How busy an engine is.

/// Upper bounds of the buckets of [`Load::core_rows_histogram`].
pub const CORE_ROWS_BOUNDS: [u32; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// How busy an engine is. What is named `total` only grows; the rest is of this moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Load {
    /// Requests with a lane.
    pub running: usize,
    /// Requests that wait for one.
    pub waiting: usize,
    /// Positions in flight: each decoding lane's last token and the drafts behind it, each prefilling lane's prompt.
    pub rows: usize,
    /// K/V blocks that lanes hold.
    pub blocks_used: usize,
    /// K/V blocks kept for prompts to come; a lane that needs one gets it.
    pub blocks_cached: usize,
    /// K/V blocks there are.
    pub blocks_total: usize,
    /// Core iterations still owed, at most, to all requests.
    pub queued_core_iterations: u64,
    /// Ticks that ran a core launch.
    pub ticks_total: u64,
    /// Rows through the prelude.
    pub prelude_rows_total: u64,
    /// Rows through the core, one each iteration.
    pub core_rows_total: u64,
    /// Rows through the coda.
    pub coda_rows_total: u64,
    /// Times a lane was taken from a request, which is replayed later.
    pub preemptions_total: u64,
    /// Positions that began on a guess of the token that they read.
    pub drafts_total: u64,
    /// Those of them that had read the token that came.
    pub drafts_kept_total: u64,
    /// Prompt positions of requests that could have found a beginning in the prefix cache.
    pub prefix_query_positions_total: u64,
    /// Those of them that were found.
    pub prefix_hit_positions_total: u64,
    /// Ticks by rows in the core launch; the last bucket has no upper bound.
    pub core_rows_histogram: [u64; CORE_ROWS_BOUNDS.len() + 1],
}

impl Load {
    pub(crate) fn count_core_rows(&mut self, rows: usize) {
        self.ticks_total += 1;
        self.core_rows_total += rows as u64;
        let bucket = CORE_ROWS_BOUNDS.partition_point(|&bound| (bound as usize) < rows);
        self.core_rows_histogram[bucket] += 1;
    }
}
