//! Answers the items of one shard, and says that it is done.

use std::time::Duration;

use futures::stream::{self, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use windlass_proto::v1::{ItemError, ItemResult, JobItem, item_result};
use windlass_store::{Operation, StoreError};
use xxhash_rust::xxh3::xxh3_64;

use super::claim::Claim;
use crate::backoff::Backoff;
use crate::error::JobsError;
use crate::execute::{Execute, ExecuteError, Task};
use crate::id::JobId;
use crate::part;
use crate::record::{Done, Totals, to_json};
use crate::result::{result_line, totals};

/// Seeds stay below 2^53, up to which JavaScript's numbers are exact.
const SEED_BITS: u32 = 53;
/// How long a shard that was begun keeps its place without its model: workers restart, and giving up loses answers.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time from one look for the model to the next.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn run(
    claim: &Claim,
    shard: u64,
    execute: &dyn Execute,
    permits: &Semaphore,
) -> Result<(), JobsError> {
    let Claim { context, record, .. } = claim;
    let object = context.items(record.id, shard);
    let items = part::decode(object.name(), &object.read().await?, record.items_of(shard))?;
    let progress = context.progress.begin(record.id, shard);
    let progress = &progress;
    let first = record.first_item(shard);
    let at_once = items.len();
    let results = stream::iter((first..).zip(items)).map(|(index, item)| async move {
        let result = answer(claim, index, item, execute, permits).await;
        let totals = totals(&result);
        progress.add(totals);
        (result_line(&result) + "\n", totals)
    });
    let results = tokio::select! {
        biased;
        results = results.buffered(at_once).collect::<Vec<_>>() => results,
        () = away(execute, &record.model) => {
            tracing::info!(job = %record.id, shard, model = record.model, "a shard waits until its model is served again");
            return claim.give_up().await;
        }
    };
    let lines: String = results.iter().map(|(line, _)| line.as_str()).collect();
    let totals = results.iter().fold(Totals::default(), |sum, (_, totals)| sum + *totals);
    let done = Done { results: format!("results/{shard:08}-{}", claim.revision), totals };
    write(claim, shard, &done, lines.into_bytes()).await;
    if !commit(claim, shard, &done).await? {
        let job = record.id;
        tracing::info!(%job, shard, "a shard's claim is gone: its results do not count");
        context.folder(job).below(&done.results).delete().await?;
    }
    Ok(())
}

/// Returns once nobody has served the model for a while.
async fn away(execute: &dyn Execute, model: &str) {
    let mut last_seen = Instant::now();
    while last_seen.elapsed() < PATIENCE {
        sleep(LOOK).await;
        if !execute.is_away(model) {
            last_seen = Instant::now();
        }
    }
}

/// Answers an item, as often as it takes.
async fn answer(
    claim: &Claim,
    index: u64,
    item: JobItem,
    execute: &dyn Execute,
    permits: &Semaphore,
) -> ItemResult {
    let JobItem { id, prompt, parameters, stop } = item;
    let id = if id.is_empty() { index.to_string() } else { id };
    let Some(prompt) = prompt else {
        let (code, message) = ("invalid_request".to_owned(), "prompt: it is missing".to_owned());
        return ItemResult {
            index,
            id,
            outcome: Some(item_result::Outcome::Error(ItemError { code, message })),
        };
    };
    let mut parameters = parameters.unwrap_or_default();
    let seed = &mut parameters.sampling.get_or_insert_default().seed;
    seed.get_or_insert_with(|| item_seed(claim.record.id, index));
    let (owner, model) = (claim.record.owner.clone(), claim.record.model.clone());
    let task = Task { owner, model, prompt, parameters, stop };
    let mut backoff = Backoff::new(index);
    let outcome = loop {
        let attempt = {
            // Never closed; and without a permit the bound would only be exceeded.
            let _permit = permits.acquire().await;
            execute.execute(task.clone()).await
        };
        match attempt {
            Ok(answer) => break item_result::Outcome::Answer(answer),
            Err(ExecuteError::Final { code, message }) => {
                break item_result::Outcome::Error(ItemError { code, message });
            }
            Err(ExecuteError::Transient { message }) => {
                tracing::debug!(job = %claim.record.id, index, message, "an item is tried again");
                backoff.pause().await;
            }
        }
    };
    ItemResult { index, id, outcome: Some(outcome) }
}

/// The seed of an item that brings none: whoever does it again gets the same answer.
fn item_seed(id: JobId, index: u64) -> u64 {
    xxh3_64(format!("{id}/{index}").as_bytes()) >> (u64::BITS - SEED_BITS)
}

/// Writes the results, as often as it takes: the folder is the server's own, and what is wrong with it is not the job's
/// fault.
async fn write(claim: &Claim, shard: u64, done: &Done, lines: Vec<u8>) {
    let object = claim.context.folder(claim.record.id).below(&done.results);
    let mut backoff = Backoff::new(shard);
    while let Err(error) = object.write(lines.clone()).await {
        tracing::warn!(%error, "results of a job wait to be written");
        backoff.pause().await;
    }
}

/// Says that the shard is done, if the claim is still there.
async fn commit(claim: &Claim, shard: u64, done: &Done) -> Result<bool, JobsError> {
    let Claim { context, record, work, .. } = claim;
    let key = context.keys.done(record.id, shard);
    let mut backoff = Backoff::new(shard);
    loop {
        let put = Operation::Put { key: key.clone(), value: to_json(done), lease: None };
        let operations = vec![put, Operation::Delete(work.key(&context.keys))];
        let attempt = async {
            let committed = context.store.commit(claim.conditions(), operations).await?;
            // An earlier attempt may have worked.
            let is_there = committed.is_some()
                || context.store.get(&key).await?.is_some_and(|entry| entry.value == to_json(done));
            Ok(is_there)
        };
        match attempt.await {
            Err(StoreError::Unavailable { .. }) => backoff.pause().await,
            attempt => return Ok(attempt?),
        }
    }
}
