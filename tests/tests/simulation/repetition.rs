//! A seed decides a simulation to the last detail.

use crate::cluster::run_seed;
use crate::{jobs, leaks, migration, registry};

/// How many seeds are compared; what tells two runs apart does so for most of them.
const SEEDS: u64 = 8;

#[test]
fn the_same_seed_gives_the_same_run() {
    for (simulate, name) in [
        (migration::simulate as fn(u64) -> String, "migration"),
        (registry::simulate, "registry"),
        (leaks::simulate, "leaks"),
        (jobs::simulate, "jobs"),
    ] {
        for seed in 0..SEEDS {
            let (one, other) = (run_seed(simulate, seed), run_seed(simulate, seed));
            let differs = one.lines().zip(other.lines()).position(|(one, other)| one != other);
            let line = differs.unwrap_or(one.lines().count().min(other.lines().count()));
            let at =
                |text: &str| text.lines().skip(line.saturating_sub(3)).take(6).collect::<Vec<_>>().join("\n");
            assert!(
                one == other,
                "{name}, seed {seed}, differs at line {line}:\n{}\n\n{}",
                at(&one),
                at(&other)
            );
        }
    }
}
