/// Why a store did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or did not answer in time. Whether a commit happened is unknown.
    #[error("the store cannot be reached: {reason}")]
    Unavailable {
        /// What broke.
        reason: String,
    },
    /// It refuses, and will go on to: wrong password, missing rights, a value too large.
    #[error("the store refused: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// The lease has expired or was revoked; its keys are gone.
    #[error("the lease has expired")]
    LeaseLost,
    /// The changes asked for are no longer kept: list again, and watch from there.
    #[error("the changes since revision {revision} are no longer kept")]
    Compacted {
        /// What was asked for.
        revision: u64,
    },
    /// What it holds makes no sense, or the file cannot be read or written.
    #[error("the store is damaged or cannot be written: {reason}")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
}
