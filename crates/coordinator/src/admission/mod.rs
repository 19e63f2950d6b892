//! Which requests may run now, which wait, and which are told to come back.

mod demand;
mod pace;
mod queue;

pub(crate) use demand::Demand;
pub(crate) use queue::{Permit, Queue, QueueError, QueueLimits};
