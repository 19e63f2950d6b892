use std::ops::{Add, AddAssign};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use windlass_proto::v1::{Job, JobState};
use windlass_store::Entry;

use crate::error::JobsError;
use crate::id::JobId;

/// Of the format below; another is not read.
pub(crate) const VERSION: u32 = 1;

/// What a job is. Written when it is accepted, and once more when it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) id: JobId,
    pub(crate) model: String,
    pub(crate) created_ms: u64,
    pub(crate) items: u64,
    pub(crate) items_per_shard: u64,
    pub(crate) priority: i32,
    pub(crate) output_uri: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    /// Whoever submitted it, by name; absent in records of servers that knew no names.
    #[serde(default)]
    pub(crate) owner: Option<String>,
    pub(crate) end: Option<End>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) outcome: Outcome,
    pub(crate) at_ms: u64,
    pub(crate) error: String,
    /// Of all items, for a job that succeeded; else those of the shards that are done.
    pub(crate) totals: Option<Totals>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Succeeded,
    Failed,
    Cancelled,
}

/// A shard that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Name of its results in the job's folder.
    pub(crate) results: String,
    pub(crate) totals: Totals,
}

/// The job that was submitted under an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Submitted {
    pub(crate) id: JobId,
    /// Equal for equal content.
    pub(crate) content: String,
}

/// What became of some items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) completion_tokens: u64,
    pub(crate) core_iterations: u64,
}

impl Record {
    pub(crate) fn shards(&self) -> u64 {
        self.items.div_ceil(self.items_per_shard)
    }

    /// Index of a shard's first item.
    pub(crate) fn first_item(&self, shard: u64) -> u64 {
        shard * self.items_per_shard
    }

    pub(crate) fn items_of(&self, shard: u64) -> u64 {
        self.items_per_shard.min(self.items - self.first_item(shard))
    }

    /// The record, as users see it. `started`: someone works on it or has.
    pub(crate) fn describe(&self, totals: Totals, started: bool) -> Job {
        let state = match &self.end {
            None if started => JobState::Running,
            None => JobState::Queued,
            Some(End { outcome: Outcome::Succeeded, .. }) => JobState::Succeeded,
            Some(End { outcome: Outcome::Failed, .. }) => JobState::Failed,
            Some(End { outcome: Outcome::Cancelled, .. }) => JobState::Cancelled,
        };
        Job {
            id: self.id.to_string(),
            state: state.into(),
            model: self.model.clone(),
            created_ms: self.created_ms,
            ended_ms: self.end.as_ref().map(|end| end.at_ms),
            items: self.items,
            succeeded: totals.succeeded,
            failed: totals.failed,
            completion_tokens: totals.completion_tokens,
            core_iterations: totals.core_iterations,
            error: self.end.as_ref().map(|end| end.error.clone()).unwrap_or_default(),
            output_uri: self.output_uri.clone().unwrap_or_default(),
            owner: self.owner.clone().unwrap_or_default(),
        }
    }
}

impl Add for Totals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            succeeded: self.succeeded + other.succeeded,
            failed: self.failed + other.failed,
            completion_tokens: self.completion_tokens + other.completion_tokens,
            core_iterations: self.core_iterations + other.core_iterations,
        }
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// The JSON that is kept of a value.
pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("numbers, texts and lists are JSON")
}

/// The value that an entry keeps.
pub(crate) fn from_entry<T: DeserializeOwned>(entry: &Entry) -> Result<T, JobsError> {
    serde_json::from_slice(&entry.value).map_err(|error| JobsError::damaged(&entry.key, &error))
}

/// The record that an entry keeps.
pub(crate) fn record(entry: &Entry) -> Result<Record, JobsError> {
    let record: Record = from_entry(entry)?;
    if record.version != VERSION {
        let reason = format!("it has version {}, and this server knows {VERSION} only", record.version);
        return Err(JobsError::damaged(&entry.key, &reason));
    }
    Ok(record)
}
