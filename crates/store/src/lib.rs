//! What a cluster agrees on: small values under keys, with leases that expire and watches that tell of changes.
//!
//! One interface, [`Store`], over memory (one process, nothing survives), a local database file (one process, everything
//! does), and etcd (many machines). Knows nothing of what the keys mean.

mod error;
mod memory;
mod store;

pub use error::StoreError;
pub use memory::MemoryStore;
pub use store::{Change, Condition, Entry, LeaseId, Listing, Operation, Page, Revision, Store, Watch};
