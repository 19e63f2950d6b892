//! Which worker gets a request.
//!
//! Core iterations, not requests, are what a worker's time goes to: a request's cost is its positions times the depth they
//! are expected to reach. Of two workers drawn at random the one that owes less is taken, so no coordinator has to know
//! exactly what the others do; but a prompt goes where prompts that begin alike went before, unless that worker owes
//! clearly more than the others. Neither changes an answer.

mod affinity;
mod choice;
mod depths;
mod work;

pub(crate) use affinity::{affinity, worker_hash};
pub(crate) use choice::{Candidate, Wish, choose};
pub(crate) use depths::{DepthEstimates, DepthPolicyKey};
pub(crate) use work::{Estimate, Work};
