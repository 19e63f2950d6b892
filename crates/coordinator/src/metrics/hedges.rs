use metrics::{counter, describe_counter};

const STARTED: &str = "windlass_hedges_total";
const WON: &str = "windlass_hedges_won_total";

pub(super) fn describe() {
    describe_counter!(
        STARTED,
        "Requests that were sent to a second worker because the first said nothing yet"
    );
    describe_counter!(WON, "Of these, those that the second worker answered first");
    counter!(STARTED).increment(0);
    counter!(WON).increment(0);
}

pub(crate) fn hedge_started() {
    counter!(STARTED).increment(1);
}

pub(crate) fn hedge_won() {
    counter!(WON).increment(1);
}
