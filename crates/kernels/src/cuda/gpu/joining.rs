//! Waiting for others that may never come.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::cuda_error::CudaError;
use crate::group::Loss;

/// How often who waits for others looks whether they still can come.
const LOSS_INTERVAL: Duration = Duration::from_millis(50);

/// Something that waits for others to join, on a thread of its own.
pub(super) struct Joining<T>(Receiver<Result<T, CudaError>>);

impl<T: Send + 'static> Joining<T> {
    /// Begins to wait, by `join`.
    pub(super) fn start(join: impl FnOnce() -> Result<T, CudaError> + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        // If somebody is lost before he has come, NCCL waits on; then this is left behind, and ends with the process.
        thread::spawn(move || sender.send(join()));
        Self(receiver)
    }

    /// Waits for them, or fails once told of a loss.
    pub(super) fn wait(self, loss: &Loss) -> Result<T, CudaError> {
        loop {
            match self.0.recv_timeout(LOSS_INTERVAL) {
                Ok(joined) => return joined,
                Err(RecvTimeoutError::Timeout) if !loss.is_told() => {}
                Err(_) => return Err(CudaError::GroupLost),
            }
        }
    }
}
