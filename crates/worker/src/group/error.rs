//! Why a rank cannot join its group or left it early.

use windlass_model::LoadError;
use windlass_transport::TlsError;

use crate::error::WorkerError;

/// Why a rank cannot join its group or left it early.
#[derive(Debug, thiserror::Error)]
pub enum RankError {
    /// Something else than a rank's number.
    #[error("rank is {rank}: use 1 to one less than the group's tp × stages; rank 0 is the worker itself")]
    Rank {
        /// The setting.
        rank: usize,
    },
    /// The address cannot be used.
    #[error("join is '{join}': {reason}")]
    Address {
        /// The setting.
        join: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Rank 0 does not take this rank.
    #[error("rank 0 refuses this rank: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// Another rank is lost, and with it the group.
    #[error("the group is lost: {reason}")]
    Lost {
        /// As far as this rank knows.
        reason: String,
    },
    /// This rank's own computation failed; the log has its message.
    #[error("this rank has stopped while it was needed: see the log")]
    Stopped,
    /// It was told to end, and rank 0 went on.
    #[error("rank 0 has not ended the group within {} s of this rank's being told to end", deadline.as_secs())]
    NotEnded {
        /// How long it waited.
        deadline: std::time::Duration,
    },
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] LoadError),
    /// As of a worker.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// A certificate, key or authority cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}
