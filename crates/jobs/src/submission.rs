//! From a spec and a stream of items to an accepted job.

use std::pin::pin;

use futures::stream::{Stream, StreamExt};
use prost::Message;
use windlass_proto::v1::{Job, JobItem, JobSpec};
use windlass_store::{Condition, Operation, Page, StoreError};

use crate::backoff::Backoff;
use crate::blobs::Blobs;
use crate::content::Content;
use crate::context::{Context, now_ms};
use crate::error::JobsError;
use crate::id::JobId;
use crate::input;
use crate::parameters::{check, check_priority, complete, default_priority};
use crate::part;
use crate::party::Party;
use crate::record::{self, Record, Submitted, Totals, VERSION, to_json};
use crate::tenure::Tenure;

/// Items of a shard: what is done again when whoever works on it dies, and what is held in memory at once.
pub(crate) const ITEMS_PER_SHARD: u64 = 64;
const KEY_LIMIT_BYTES: usize = 200;
/// How often a job is tried to be accepted while the store cannot be reached.
const ACCEPT_ATTEMPTS: u32 = 5;

/// Stores all items, then accepts the job in one commit. Whatever fails before leaves nothing behind.
pub(crate) async fn submit<S>(
    context: &Context,
    party: &Party,
    mut spec: JobSpec,
    items: S,
) -> Result<Job, JobsError>
where
    S: Stream<Item = Result<JobItem, JobsError>> + Send,
{
    check_spec(context, party, &spec).await?;
    let mut content = Content::of(spec.clone());
    spec.priority.get_or_insert(default_priority(party));
    let Some(uri) = &spec.input_uri else {
        return store(context, party, &spec, pin!(items), content, true).await;
    };
    if pin!(items).next().await.is_some() {
        return Err(JobsError::invalid("item", "input_uri is set too: send items, or say where they are"));
    }
    content.add(JobItem::default());
    let url = context.config.allowed("input_uri", uri)?;
    let items = input::read(&url, &context.config).await?;
    store(context, party, &spec, pin!(items), content, false).await
}

/// `inline`: the items are part of what an idempotency key stands for.
async fn store<S>(
    context: &Context,
    party: &Party,
    spec: &JobSpec,
    mut items: S,
    mut content: Content,
    inline: bool,
) -> Result<Job, JobsError>
where
    S: Stream<Item = Result<JobItem, JobsError>> + Send + Unpin,
{
    if let Some(key) = &spec.idempotency_key
        && let Some(submitted) = submitted(context, party, key).await?
    {
        while inline && let Some(item) = items.next().await {
            content.add(item?);
        }
        return known(context, party, key, submitted, &content.finish()).await;
    }
    check_room(context, party).await?;
    let id = JobId::new();
    let tenure = Tenure::begin(&context.store, context.config.lease).await?;
    let submission = Submission { context, party, spec, id, tenure: &tenure };
    let accepted = submission.run(items, inline.then_some(&mut content)).await;
    let accepted = match accepted {
        Ok(items) => submission.accept(items, &content.finish()).await,
        Err(error) => Err(error),
    };
    // Where it is unknown whether the job was accepted, its items stay; if it was not, they are swept later.
    let may_be_accepted =
        matches!(&accepted, Ok(Some(_)) | Err(JobsError::Store(StoreError::Unavailable { .. })));
    if !may_be_accepted && let Err(error) = context.delete_folder(id).await {
        tracing::warn!(%error, "what a submission left cannot be deleted now");
    }
    tenure.end().await;
    match (accepted?, &spec.idempotency_key) {
        (Some(job), _) => Ok(job),
        (None, Some(key)) if let Some(submitted) = submitted(context, party, key).await? => {
            known(context, party, key, submitted, &content.finish()).await
        }
        (None, _) => Err(JobsError::Store(StoreError::LeaseLost)),
    }
}

struct Submission<'a> {
    context: &'a Context,
    party: &'a Party,
    spec: &'a JobSpec,
    id: JobId,
    tenure: &'a Tenure,
}

impl Submission<'_> {
    /// Stores all items; how many they were.
    async fn run<S>(&self, mut items: S, mut content: Option<&mut Content>) -> Result<u64, JobsError>
    where
        S: Stream<Item = Result<JobItem, JobsError>> + Send + Unpin,
    {
        let Self { context, id, tenure, .. } = self;
        // Before the first blob: only a folder that is known is deleted, and it is without record and submission.
        let put = |key, lease| Operation::Put { key, value: tenure.owner.clone().into(), lease };
        let folder = put(context.keys.folder(*id), None);
        let submission = put(context.keys.submission(*id), Some(tenure.lease()));
        context.store.commit(Vec::new(), vec![folder, submission]).await?;
        let mut count = 0;
        let mut shard = Vec::new();
        while let Some(item) = items.next().await {
            let item = item?;
            if let Some(content) = &mut content {
                content.add(item.clone());
            }
            shard.push(self.checked(item, count)?);
            count += 1;
            if shard.len() as u64 == ITEMS_PER_SHARD {
                self.write(count, &mut shard).await?;
            }
        }
        match count {
            0 => Err(JobsError::invalid("item", "there is none: send at least one")),
            _ if shard.is_empty() => Ok(count),
            _ => self.write(count, &mut shard).await.map(|()| count),
        }
    }

    /// Writes the last shard of `count` items.
    async fn write(&self, count: u64, shard: &mut Vec<JobItem>) -> Result<(), JobsError> {
        let number = (count - 1) / ITEMS_PER_SHARD;
        let object: Blobs = self.context.items(self.id, number);
        object.write(part::encode(shard)).await?;
        shard.clear();
        Ok(())
    }

    /// The item with what it takes from its job.
    fn checked(&self, mut item: JobItem, index: u64) -> Result<JobItem, JobsError> {
        let config = &self.context.config;
        let fault =
            |field: &str, message: String| Err(JobsError::invalid(format!("item[{index}]{field}"), message));
        if index >= config.max_items {
            let limit = config.max_items;
            return fault(
                "",
                format!("a job has at most {limit} items (the server's setting jobs_max_items)"),
            );
        }
        complete(&mut item, self.spec);
        if item.prompt.is_none() {
            return fault(".prompt", "it is missing: set one of text, token_ids and chat".into());
        }
        let checked = item.parameters.as_ref().map(|parameters| check(parameters, self.party));
        if let Some(Err(JobsError::Invalid { field, message })) = checked {
            return fault(&format!(".{field}"), message);
        }
        let (size, limit) = (item.encoded_len(), config.max_item_bytes);
        if size > limit {
            let message = format!("it has {size} bytes, at most {limit} are allowed (jobs_max_item_bytes)");
            return fault("", message);
        }
        Ok(item)
    }

    /// The commit that makes it a job; `None` if the submission's lease is over or its idempotency key was taken.
    async fn accept(&self, items: u64, content: &str) -> Result<Option<Job>, JobsError> {
        let Self { context, party, spec, id, .. } = self;
        let owner = party.name.as_deref();
        let keys = &context.keys;
        let record = Record {
            version: VERSION,
            id: *id,
            model: spec.model.clone(),
            created_ms: now_ms(),
            items,
            items_per_shard: ITEMS_PER_SHARD,
            priority: spec.priority.unwrap_or_default(),
            output_uri: spec.output_uri.clone(),
            idempotency_key: spec.idempotency_key.clone(),
            owner: party.name.clone(),
            end: None,
        };
        let put = |key, value| Operation::Put { key, value, lease: None };
        let mut conditions = vec![Condition::Present(keys.submission(*id))];
        let mut operations = vec![
            put(keys.record(*id), to_json(&record)),
            put(keys.open_job(*id), owner.unwrap_or_default().into()),
            Operation::Delete(keys.submission(*id)),
        ];
        if let Some(key) = &spec.idempotency_key {
            let submitted = Submitted { id: *id, content: content.to_owned() };
            conditions.push(Condition::Absent(keys.idempotency(owner, key)));
            operations.push(put(keys.idempotency(owner, key), to_json(&submitted)));
        }
        let accepted = self.commit(&conditions, &operations).await?;
        Ok(accepted.then(|| record.describe(Totals::default(), false)))
    }

    /// Commits; where it is unknown whether that worked, looks, and tries again.
    async fn commit(&self, conditions: &[Condition], operations: &[Operation]) -> Result<bool, JobsError> {
        let Context { store, keys, .. } = self.context;
        let mut backoff = Backoff::new(0);
        let mut attempts = 1;
        loop {
            let attempt = async {
                let committed = store.commit(conditions.to_vec(), operations.to_vec()).await?;
                // Perhaps an earlier attempt worked.
                Ok(committed.is_some() || store.get(&keys.record(self.id)).await?.is_some())
            };
            match attempt.await {
                Err(StoreError::Unavailable { .. }) if attempts < ACCEPT_ATTEMPTS => backoff.pause().await,
                attempt => return Ok(attempt?),
            }
            attempts += 1;
        }
    }
}

async fn check_spec(context: &Context, party: &Party, spec: &JobSpec) -> Result<(), JobsError> {
    if let Some(priority) = spec.priority {
        check_priority(party, "priority", priority)?;
    }
    if let Some(parameters) = &spec.parameters {
        check(parameters, party)?;
    }
    if let Some(key) = &spec.idempotency_key {
        let length = key.len();
        if length == 0 || length > KEY_LIMIT_BYTES {
            let message = format!("it has {length} bytes: use 1 to {KEY_LIMIT_BYTES}, or leave it out");
            return Err(JobsError::invalid("idempotency_key", message));
        }
    }
    if let Some(uri) = &spec.output_uri {
        let url = context.config.allowed("output_uri", uri)?;
        if url.to_file_path().is_ok_and(|path| path.is_dir()) {
            return Err(JobsError::invalid("output_uri", format!("'{uri}' is a folder: name a file in it")));
        }
        let output = Blobs::at(&url)?;
        if let Some(file) = output.file() {
            context.config.check_file("output_uri", &file)?;
        }
        let reachable = output.exists().await;
        reachable.map_err(|error| JobsError::invalid("output_uri", error.to_string()))?;
    }
    Ok(())
}

async fn check_room(context: &Context, party: &Party) -> Result<(), JobsError> {
    let limit = context.config.max_open;
    let entries = context.store.list(&context.keys.open(), Page { after: None, limit }).await?.entries;
    let open = entries.len();
    if open >= limit {
        return Err(JobsError::TooMany { open, limit });
    }
    let (Some(owner), Some(limit)) = (&party.name, party.max_open) else { return Ok(()) };
    let open = entries.iter().filter(|entry| entry.value == owner.as_bytes()).count();
    if open < limit { Ok(()) } else { Err(JobsError::TooManyOfOwner { owner: owner.clone(), open, limit }) }
}

/// What was submitted under an idempotency key.
async fn submitted(context: &Context, party: &Party, key: &str) -> Result<Option<Submitted>, JobsError> {
    let key = context.keys.idempotency(party.name.as_deref(), key);
    let entry = context.store.get(&key).await?;
    entry.map(|entry| record::from_entry(&entry)).transpose()
}

/// The job that was submitted under the key, if its content was the same.
async fn known(
    context: &Context,
    party: &Party,
    key: &str,
    submitted: Submitted,
    content: &str,
) -> Result<Job, JobsError> {
    if submitted.content != content {
        return Err(JobsError::KeyTaken { key: key.to_owned(), id: submitted.id.to_string() });
    }
    crate::watch::describe(context, party, submitted.id).await
}
