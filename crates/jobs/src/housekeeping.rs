//! Deletes jobs that were kept long enough, and what submissions that broke off have left.

use std::time::Duration;

use tokio::time::sleep;
use windlass_store::{Condition, Operation, Revision};

use crate::context::{Context, now_ms};
use crate::error::JobsError;
use crate::id::JobId;
use crate::record::{self, Record};

const INTERVAL: Duration = Duration::from_secs(300);

/// Goes on until it is dropped. Any number of processes may do it at once.
pub(crate) async fn run(context: &Context) {
    loop {
        if let Err(error) = delete_old(context).await {
            tracing::warn!(%error, "old jobs cannot be deleted now");
        }
        if let Err(error) = sweep(context).await {
            tracing::warn!(%error, "what broken submissions left cannot be deleted now");
        }
        sleep(INTERVAL).await;
    }
}

/// Deletes the records of jobs that ended long ago. Their folders have no record then, and are swept.
async fn delete_old(context: &Context) -> Result<(), JobsError> {
    let Some(retention) = context.config.retention else { return Ok(()) };
    let before_ms = now_ms().saturating_sub(u64::try_from(retention.as_millis()).unwrap_or(u64::MAX));
    for entry in context.list(&context.keys.records(), None).await? {
        let record = record::record(&entry)?;
        if record.end.as_ref().is_some_and(|end| end.at_ms < before_ms) {
            delete(context, &record, entry.revision).await?;
        }
    }
    Ok(())
}

async fn delete(context: &Context, record: &Record, revision: Revision) -> Result<(), JobsError> {
    let keys = &context.keys;
    let key = keys.record(record.id);
    // Its folder is swept, that of a job from before folders were noted too.
    let folder = Operation::Put { key: keys.folder(record.id), value: Vec::new(), lease: None };
    let mut operations =
        vec![Operation::Delete(key.clone()), Operation::DeletePrefix(keys.done_of(record.id)), folder];
    let idempotency = |key: &String| keys.idempotency(record.owner.as_deref(), key);
    operations.extend(record.idempotency_key.as_ref().map(|key| Operation::Delete(idempotency(key))));
    context.store.commit(vec![Condition::Unchanged(key, revision)], operations).await?;
    tracing::info!(job = %record.id, "deleted a job that ended long ago");
    Ok(())
}

/// Deletes folders that belong to no job and to no submission. Others may have theirs in the same place, so only those that
/// the store knows are looked at.
async fn sweep(context: &Context) -> Result<(), JobsError> {
    let prefix = context.keys.folders();
    for entry in context.list(&prefix, None).await? {
        let Ok(id) = entry.key[prefix.len()..].parse::<JobId>() else { continue };
        // In this order: accepting a job turns one into the other.
        let submission = context.store.get(&context.keys.submission(id)).await?;
        if submission.is_none() && context.store.get(&context.keys.record(id)).await?.is_none() {
            context.delete_folder(id).await?;
        }
    }
    Ok(())
}
