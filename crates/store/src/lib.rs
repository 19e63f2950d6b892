//! What a cluster agrees on: small values under keys, with leases that expire and watches that tell of changes.
//!
//! One interface, [`Store`], over memory (one process, nothing survives), a local database file (one process, everything
//! but leases does), and etcd (many machines). Knows nothing of what the keys mean, but for [`membership`], whose records
//! are written by workers and read by coordinators.

mod embedded;
mod error;
mod etcd;
mod jitter;
mod lease;
mod local;
pub mod membership;
mod memory;
mod state;
mod store;

pub use error::StoreError;
pub use etcd::{EtcdConfig, EtcdConfigError, EtcdPassword, EtcdStore};
pub use jitter::{jitter, seed_jitter};
pub use lease::LeaseKeeper;
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use store::{
    Change, Condition, Entry, LeaseId, Listing, MAX_OPERATIONS, Operation, Page, Revision, Store, Watch,
};
pub use windlass_transport::{ClientTlsFiles, PemFile, TlsError};
