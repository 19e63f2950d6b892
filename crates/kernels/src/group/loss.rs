//! Word of a rank that is lost, for devices that would wait for it forever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a group has lost a rank, as far as this process knows. Clones know the same.
#[derive(Debug, Clone, Default)]
pub struct Loss(Arc<AtomicBool>);

impl Loss {
    /// A rank is lost.
    pub fn tell(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether one is.
    pub fn is_told(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
