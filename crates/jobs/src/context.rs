use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use windlass_store::{Entry, Operation, Page, Revision, Store, StoreError};

use crate::blobs::Blobs;
use crate::config::JobsConfig;
use crate::error::JobsError;
use crate::id::JobId;
use crate::keys::Keys;
use crate::party::Party;
use crate::progress::Progress;
use crate::pulse::Pulse;
use crate::record::{self, Record};

/// Most entries that are asked for at once.
const PAGE: usize = 1000;

/// What everything about jobs works on.
pub(crate) struct Context {
    pub(crate) config: JobsConfig,
    pub(crate) keys: Keys,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: Blobs,
    pub(crate) pulse: Pulse,
    pub(crate) progress: Progress,
}

impl Context {
    /// Where a job's items and results are.
    pub(crate) fn folder(&self, id: JobId) -> Blobs {
        self.blobs.below(&id.to_string())
    }

    /// Deletes a job's folder. It stays known until it is gone.
    pub(crate) async fn delete_folder(&self, id: JobId) -> Result<(), JobsError> {
        self.folder(id).delete_all().await?;
        self.store.commit(Vec::new(), vec![Operation::Delete(self.keys.folder(id))]).await?;
        Ok(())
    }

    /// A shard's items.
    pub(crate) fn items(&self, id: JobId, shard: u64) -> Blobs {
        self.folder(id).below(&format!("items/{shard:08}"))
    }

    /// A job's record and the revision that wrote it.
    pub(crate) async fn record(&self, id: JobId) -> Result<(Record, Revision), JobsError> {
        let entry = self.store.get(&self.keys.record(id)).await?;
        let entry = entry.ok_or_else(|| JobsError::NotFound { id: id.to_string() })?;
        Ok((record::record(&entry)?, entry.revision))
    }

    /// The same, if the job is the party's: to others it is not there.
    pub(crate) async fn record_for(&self, party: &Party, id: JobId) -> Result<(Record, Revision), JobsError> {
        let found = self.record(id).await?;
        if party.sees(&found.0) { Ok(found) } else { Err(JobsError::NotFound { id: id.to_string() }) }
    }

    /// All entries below a prefix, behind the key `after`.
    pub(crate) async fn list(&self, prefix: &str, after: Option<String>) -> Result<Vec<Entry>, StoreError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut after = after;
        loop {
            let page = self.store.list(prefix, Page { after, limit: PAGE }).await?.entries;
            let is_last = page.len() < PAGE;
            entries.extend(page);
            if is_last {
                return Ok(entries);
            }
            after = entries.last().map(|entry| entry.key.clone());
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
