//! Clusters of real coordinators and workers (without models) on a simulated network and clock, with random faults.
//!
//! A seed decides everything: faults, requests, latencies, and who comes first of those that are ready together. So a
//! failure can be had again, with the seed that it names: `WINDLASS_SEEDS` says which ones run, `500` for the first 500,
//! `17..=17` for one. `WINDLASS_TRACES` names a folder for what happened, a file for each simulation and seed.
//!
//! One invariant per file. The crate `jobs` has simulations of its own, without a network.

mod cluster;
mod dice;
mod faults;
mod hosts;
mod jobs;
mod leaks;
mod migration;
mod network;
mod registry;
mod repetition;
mod requests;
mod store;
mod trace;

use std::ops::RangeInclusive;

/// How many seeds each invariant is tried with, unless `WINDLASS_SEEDS` says otherwise.
const SEEDS: u64 = 200;

/// The seeds to be run.
fn seeds() -> RangeInclusive<u64> {
    let asked = std::env::var("WINDLASS_SEEDS").unwrap_or_default();
    let number = |text: &str| text.parse().expect("WINDLASS_SEEDS is a number, or two as in 3..=7");
    match asked.split_once("..=") {
        Some((first, last)) => number(first)..=number(last),
        None if asked.is_empty() => 0..=SEEDS - 1,
        None => 0..=number(&asked) - 1,
    }
}
