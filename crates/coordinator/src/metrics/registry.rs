use std::time::Duration;

use metrics::{Unit, describe_gauge, gauge};

const UP: &str = "windlass_registry_up";
const AGE: &str = "windlass_registry_age_seconds";

pub(super) fn describe() {
    describe_gauge!(UP, "Whether the list of workers is followed as it changes, 1 for yes");
    describe_gauge!(AGE, Unit::Seconds, "How long the list of workers has not been followed; 0 while it is");
}

/// Whether the list of workers is followed.
pub(crate) fn registry_up(is_up: bool) {
    gauge!(UP).set(if is_up { 1.0 } else { 0.0 });
}

/// How old the list of workers may be.
pub(crate) fn registry_age(age: Duration) {
    gauge!(AGE).set(age.as_secs_f64());
}
