//! A job's results in order of items, as shards become done.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{Stream, try_unfold};
use windlass_proto::v1::ItemResult;

use crate::context::Context;
use crate::error::JobsError;
use crate::id::JobId;
use crate::party::Party;
use crate::pulse::Beat;
use crate::record::{self, Done, Record};
use crate::result::parse_results;

/// The results from item `first` on, each once; ends with the job. Items of a job that was cancelled or failed may be
/// missing.
pub(crate) fn results(
    context: Arc<Context>,
    party: Arc<Party>,
    id: JobId,
    first: u64,
) -> impl Stream<Item = Result<ItemResult, JobsError>> + Send + use<> {
    let beat = context.pulse.beat();
    let reader = Reader { context, party, id, beat, next: first, ready: VecDeque::new(), record: None };
    try_unfold(reader, |mut reader| async move {
        let result = reader.next().await?;
        Ok(result.map(|result| (result, reader)))
    })
}

struct Reader {
    context: Arc<Context>,
    party: Arc<Party>,
    id: JobId,
    beat: Beat,
    /// Index of the first item that was not read.
    next: u64,
    ready: VecDeque<ItemResult>,
    /// As it was before the store was last asked for a shard.
    record: Option<Record>,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<ItemResult>, JobsError> {
        loop {
            if let Some(result) = self.ready.pop_front() {
                return Ok(Some(result));
            }
            let record = match self.record.take() {
                Some(record) => record,
                None => self.context.record_for(&self.party, self.id).await?.0,
            };
            if self.next > record.items {
                let (token, items) = (self.next - 1, record.items);
                let message =
                    format!("'{token}' is behind the last of {items} results: use that of an earlier one");
                return Err(JobsError::invalid("resume_token", message));
            }
            if self.next == record.items {
                return Ok(None);
            }
            let shard = self.next / record.items_per_shard;
            let behind = record.first_item(shard) + record.items_of(shard);
            let ended = record.end.is_some();
            if let Some(done) = self.context.store.get(&self.context.keys.done(self.id, shard)).await? {
                let results = self.read(&record::from_entry(&done)?).await?;
                self.ready = results.into_iter().filter(|result| result.index >= self.next).collect();
                self.next = behind;
            } else if ended {
                // It ended before the shard was looked for, so the shard never will be done.
                self.next = behind;
            } else {
                self.beat.next().await;
                continue;
            }
            self.record = Some(record);
        }
    }

    async fn read(&self, done: &Done) -> Result<Vec<ItemResult>, JobsError> {
        let object = self.context.folder(self.id).below(&done.results);
        parse_results(object.name(), &object.read().await?)
    }
}
