//! Who asks, and what each may: API keys, their limits, and the doors of both fronts.
//!
//! A key is known by its SHA-256 only. Keys are random, so a plain digest tells nothing of them; there are no passwords.

mod authorization;
mod caller;
mod door;
mod key_file;
mod keyring;
mod limits;

pub(crate) use authorization::Unauthorized;
pub(crate) use caller::Caller;
pub(crate) use door::GrpcDoor;
pub use key_file::api_key_entry;
pub(crate) use keyring::Keyring;
pub(crate) use limits::{Allowance, OverLimit};
