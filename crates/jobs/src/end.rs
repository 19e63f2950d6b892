use windlass_store::{Condition, Operation, Revision};

use crate::context::{Context, now_ms};
use crate::error::JobsError;
use crate::id::JobId;
use crate::record::{End, Outcome, Record, Totals, to_json};

/// Ends a job, unless it has ended: its record as it is then.
///
/// Whoever works on it notices that his claim is gone, and can commit nothing any more.
pub(crate) async fn end(
    context: &Context,
    id: JobId,
    outcome: Outcome,
    error: &str,
) -> Result<Record, JobsError> {
    loop {
        let (record, revision) = context.record(id).await?;
        if record.end.is_some() {
            return Ok(record);
        }
        let end = End { outcome, at_ms: now_ms(), error: error.to_owned(), totals: None };
        let ended = Record { end: Some(end), ..record };
        if commit(context, &ended, revision, Vec::new()).await? {
            return Ok(ended);
        }
    }
}

/// Ends a job as succeeded, as long as the claim of its output is there.
pub(crate) async fn succeed(
    context: &Context,
    record: &Record,
    revision: Revision,
    claim: Revision,
    totals: Totals,
) -> Result<bool, JobsError> {
    let end =
        End { outcome: Outcome::Succeeded, at_ms: now_ms(), error: String::new(), totals: Some(totals) };
    let ended = Record { end: Some(end), ..record.clone() };
    let claimed = Condition::Unchanged(context.keys.output_claim(record.id), claim);
    commit(context, &ended, revision, vec![claimed]).await
}

async fn commit(
    context: &Context,
    ended: &Record,
    revision: Revision,
    mut conditions: Vec<Condition>,
) -> Result<bool, JobsError> {
    let keys = &context.keys;
    let record = keys.record(ended.id);
    conditions.push(Condition::Unchanged(record.clone(), revision));
    let operations = vec![
        Operation::Put { key: record, value: to_json(ended), lease: None },
        Operation::Delete(keys.open_job(ended.id)),
        Operation::DeletePrefix(keys.claims_of(ended.id)),
    ];
    Ok(context.store.commit(conditions, operations).await?.is_some())
}
