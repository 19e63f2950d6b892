//! What jobs promise, one promise per file, over stores in memory that fail at random, and under a clock that stands still
//! while anyone works.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod answers;
mod away;
mod cancel;
mod dice;
mod every_item_once;
mod failure;
mod flaky_blobs;
mod flaky_store;
mod idempotency;
mod input;
mod limits;
mod list;
mod neighbours;
mod no_claim_left;
mod ownership;
mod progress;
mod results;
mod retention;
mod submission;
mod world;
