//! Jobs of many prompts, results later: accepted means durable.
//!
//! A job's items are cut into *shards* of a fixed number of items. The store holds small things (the job's record, who
//! works on which shard, which shards are done), the object store large ones (a shard's items, its results, the output). A
//! [`Jobs`] that runs claims a shard under a lease, writes its results under a name of the claim's own, and then says in one
//! commit, which fails unless the claim is still there, that the shard is done and where its results are. So whoever dies,
//! every item has one result.
//!
//! Knows nothing of workers, HTTP or gRPC: items are answered by an [`Execute`].

mod backoff;
mod blobs;
mod config;
mod containment;
mod content;
mod context;
mod done;
mod end;
mod error;
mod execute;
mod housekeeping;
mod id;
mod input;
mod jobs;
mod keys;
mod line;
mod parameters;
mod part;
mod party;
mod policy;
mod progress;
mod pulse;
mod record;
mod result;
mod results;
mod runner;
mod submission;
mod tenure;
mod watch;

pub use blobs::Blobs;
pub use config::JobsConfig;
pub use error::JobsError;
pub use execute::{Execute, ExecuteError, Task};
pub use jobs::Jobs;
pub use line::parse_line;
pub use party::Party;
pub use result::result_line;
