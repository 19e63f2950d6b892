//! What Prometheus is told: counters of this coordinator here, the workers' own numbers in `workers`.

mod hedges;
mod keys;
mod model;
mod registry;
mod workers;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

pub(crate) use hedges::{hedge_started, hedge_won};
pub(crate) use keys::{key_limited, key_request, key_tokens, known_key};
pub(crate) use model::{Ending, ModelMetrics};
pub(crate) use registry::{registry_age, registry_up};
pub(crate) use workers::render_workers;

use crate::error::CoordinatorError;
use crate::generation::GenerationError;
use model::{END_TO_END, FIRST_TOKEN, INTER_TOKEN, TOKEN_DEPTH};

const FAILURE: &str = "windlass_request_failure_total";
const JOB_ITEMS: &str = "windlass_job_items_total";

const MIGRATIONS: &str = "windlass_migrations_total";
const WORKER_LOSSES: &str = "windlass_worker_losses_total";
const QUEUED_REQUESTS: &str = "windlass_queued_requests";
const QUEUED_CORE_ITERATIONS: &str = "windlass_queued_core_iterations";
const QUEUE_WAIT: &str = "windlass_queue_wait_seconds";

const TOKEN_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const REQUEST_SECONDS: [f64; 14] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
const DEPTHS: [f64; 11] = [1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0];

static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// The process's recorder; the first call installs it.
pub(crate) fn recorder() -> Result<PrometheusHandle, CoordinatorError> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = installed.as_ref() {
        return Ok(handle.clone());
    }
    let handle = install().map_err(|error| CoordinatorError::Metrics { reason: error.to_string() })?;
    *installed = Some(handle.clone());
    Ok(handle)
}

fn install() -> Result<PrometheusHandle, BuildError> {
    let named = |name: &str| Matcher::Full(name.to_owned());
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(named(FIRST_TOKEN), &TOKEN_SECONDS)?
        .set_buckets_for_metric(named(INTER_TOKEN), &TOKEN_SECONDS)?
        .set_buckets_for_metric(named(END_TO_END), &REQUEST_SECONDS)?
        .set_buckets_for_metric(named(QUEUE_WAIT), &TOKEN_SECONDS)?
        .set_buckets_for_metric(named(TOKEN_DEPTH), &DEPTHS)?
        .install_recorder()?;
    describe();
    describe_cluster();
    Ok(handle)
}

fn describe() {
    registry::describe();
    keys::describe();
    model::describe();
    describe_counter!(
        FAILURE,
        "Errors told to clients, and other choices of the same request that ended with them, by code"
    );
    // From the start: an alert sees a counter rise, and not that one has come.
    for code in GenerationError::CODES.into_iter().chain(["invalid_api_key", "permission_denied"]) {
        counter!(FAILURE, "code" => code).increment(0);
    }
    describe_counter!(JOB_ITEMS, "Attempts at items of jobs, by outcome: answered, failed, or again later");
}

fn describe_cluster() {
    describe_counter!(
        MIGRATIONS,
        "Generations that went on at another worker, by how the one before was lost: silence, connection, handover or engine"
    );
    describe_counter!(WORKER_LOSSES, "Workers that were ready and then silent, gone or broken");
    describe_gauge!(QUEUED_REQUESTS, "Requests that wait until they may begin");
    describe_gauge!(QUEUED_CORE_ITERATIONS, "Core iterations that the waiting requests are expected to take");
    describe_histogram!(
        QUEUE_WAIT,
        Unit::Seconds,
        "How long requests waited for a place to run, by outcome: admitted, or refused because of full, displaced, timeout or deadline"
    );
    hedges::describe();
    counter!(WORKER_LOSSES).increment(0);
    for reason in ["silence", "connection", "handover", "engine"] {
        counter!(MIGRATIONS, "reason" => reason).increment(0);
    }
    queue(0, 0);
}

pub(crate) fn failure(code: &'static str) {
    counter!(FAILURE, "code" => code).increment(1);
}

/// A generation goes on at another worker than the one it was lost at.
pub(crate) fn migration(reason: &'static str) {
    counter!(MIGRATIONS, "reason" => reason).increment(1);
}

pub(crate) fn worker_lost() {
    counter!(WORKER_LOSSES).increment(1);
}

/// What waits now.
pub(crate) fn queue(requests: usize, core_iterations: u64) {
    gauge!(QUEUED_REQUESTS).set(requests as f64);
    gauge!(QUEUED_CORE_ITERATIONS).set(core_iterations as f64);
}

pub(crate) fn queue_wait(wait: Duration, outcome: &'static str) {
    histogram!(QUEUE_WAIT, "outcome" => outcome).record(wait);
}

/// An attempt at an item of a job.
pub(crate) fn job_item(outcome: &'static str) {
    counter!(JOB_ITEMS, "outcome" => outcome).increment(1);
}
