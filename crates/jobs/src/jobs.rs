use std::sync::Arc;

use futures::stream::Stream;
use windlass_proto::v1::{ItemResult, Job, JobItem, JobSpec};
use windlass_store::{Page, Store};

use crate::blobs::Blobs;
use crate::config::JobsConfig;
use crate::context::Context;
use crate::done::DoneShards;
use crate::error::JobsError;
use crate::execute::Execute;
use crate::id::JobId;
use crate::keys::Keys;
use crate::party::Party;
use crate::progress::Progress;
use crate::pulse::Pulse;
use crate::record::Outcome;
use crate::{end, housekeeping, record, results, runner, submission, watch};

/// Most jobs that one list has.
const LIST_LIMIT: u32 = 1000;

/// All jobs of a cluster, as one party sees them. Clones share everything.
#[derive(Clone)]
pub struct Jobs {
    context: Arc<Context>,
    party: Arc<Party>,
}

impl Jobs {
    /// Records and claims live in `store`, items and results in `blobs`; anyone sees all. Must be called inside a tokio
    /// runtime.
    pub fn new(config: JobsConfig, store: Arc<dyn Store>, blobs: Blobs) -> Self {
        let keys = Keys::new(&config.cluster);
        let pulse = Pulse::start(Arc::clone(&store), keys.prefix.clone());
        let context = Context { config, keys, store, blobs, pulse, progress: Progress::default() };
        Self { context: Arc::new(context), party: Arc::new(Party::anyone()) }
    }

    /// The same jobs as this party sees them: what is not its own is not there.
    #[must_use]
    pub fn seen_by(&self, party: Party) -> Self {
        Self { context: Arc::clone(&self.context), party: Arc::new(party) }
    }

    /// Items that are in flight at once here.
    pub fn concurrency(&self) -> usize {
        self.context.config.concurrency
    }

    /// Accepts a job once all its items are stored. Without `input_uri` they are the stream's, which must be empty else.
    pub async fn submit(
        &self,
        spec: JobSpec,
        items: impl Stream<Item = Result<JobItem, JobsError>> + Send,
    ) -> Result<Job, JobsError> {
        submission::submit(&self.context, &self.party, spec, items).await
    }

    /// A job as it is.
    pub async fn get(&self, id: &str) -> Result<Job, JobsError> {
        watch::describe(&self.context, &self.party, id.parse()?).await
    }

    /// Jobs, newest first, and the token to go on with; it is empty at the end.
    pub async fn list(&self, limit: Option<u32>, page_token: &str) -> Result<(Vec<Job>, String), JobsError> {
        let limit = limit.unwrap_or(100);
        if !(1..=LIST_LIMIT).contains(&limit) {
            return Err(JobsError::invalid(
                "limit",
                format!("{limit} is out of range: use 1 to {LIST_LIMIT}"),
            ));
        }
        let wrong =
            |_| JobsError::invalid("page_token", format!("'{page_token}' is none: use next_page_token"));
        let mut after = match page_token {
            "" => None,
            token => Some(self.context.keys.record(token.parse::<JobId>().map_err(wrong)?)),
        };
        let mut jobs: Vec<Job> = Vec::new();
        // A page of the store may hold jobs of others.
        loop {
            let page = Page { after, limit: limit as usize };
            let entries = self.context.store.list(&self.context.keys.records(), page).await?.entries;
            for entry in &entries {
                let record = record::record(entry)?;
                if !self.party.sees(&record) {
                    continue;
                }
                jobs.push(watch::look(&self.context, &record, &mut DoneShards::default()).await?);
                if jobs.len() == limit as usize {
                    let next = record.id.to_string();
                    return Ok((jobs, next));
                }
            }
            if entries.len() < limit as usize {
                return Ok((jobs, String::new()));
            }
            after = entries.last().map(|entry| entry.key.clone());
        }
    }

    /// Ends a job; what is done of it stays. One that has ended is left as it is.
    pub async fn cancel(&self, id: &str) -> Result<Job, JobsError> {
        let id = id.parse()?;
        self.context.record_for(&self.party, id).await?;
        let record = end::end(&self.context, id, Outcome::Cancelled, "").await?;
        watch::look(&self.context, &record, &mut DoneShards::default()).await
    }

    /// Results in order of items as they become certain, each with the token to go on behind it; ends with the job.
    pub fn results(
        &self,
        id: &str,
        resume_token: &str,
    ) -> Result<impl Stream<Item = Result<ItemResult, JobsError>> + Send + use<>, JobsError> {
        let first = match resume_token {
            "" => 0,
            token => token.parse::<u64>().ok().and_then(|index| index.checked_add(1)).ok_or_else(|| {
                let message = format!("'{token}' is none: use that of an earlier result");
                JobsError::invalid("resume_token", message)
            })?,
        };
        Ok(results::results(Arc::clone(&self.context), Arc::clone(&self.party), id.parse()?, first))
    }

    /// The token to go on with behind a result.
    pub fn resume_token(result: &ItemResult) -> String {
        result.index.to_string()
    }

    /// The job at once and after every change, until it has ended.
    pub fn watch(
        &self,
        id: &str,
    ) -> Result<impl Stream<Item = Result<Job, JobsError>> + Send + use<>, JobsError> {
        Ok(watch::watch(Arc::clone(&self.context), Arc::clone(&self.party), id.parse()?))
    }

    /// Works on jobs, whoever accepted them, until `shutdown`; then leaves them to others at once.
    pub async fn run(&self, execute: Arc<dyn Execute>, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            // Work comes first, and every time in the same order: both ask the store.
            biased;
            () = runner::run(&self.context, &execute, shutdown) => {}
            () = housekeeping::run(&self.context) => {}
        }
    }
}
