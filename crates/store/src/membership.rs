//! The record by which a worker is found, and where it is kept: `/windlass/v1/{cluster}/workers/{id}`.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name of a cluster or a worker.
const LONGEST: usize = 128;

/// Names a worker of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(String);

impl WorkerId {
    /// Takes a name that can be part of a key.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        Ok(Self(checked(name.into())?))
    }

    /// A name that no one else has, and that sorts by time.
    pub fn random() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Borrow<str> for WorkerId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The keys of one cluster's workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberKeys {
    prefix: String,
}

impl MemberKeys {
    /// Those of the cluster of this name.
    pub fn of(cluster: &str) -> Result<Self, NameError> {
        Ok(Self { prefix: format!("/windlass/v1/{}/workers/", checked(cluster.to_owned())?) })
    }

    /// What all of them begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key of one worker.
    pub fn key(&self, id: &WorkerId) -> String {
        format!("{}{id}", self.prefix)
    }

    /// Whose key it is; `None` for one that is not among these.
    pub fn id(&self, key: &str) -> Option<WorkerId> {
        WorkerId::new(key.strip_prefix(&self.prefix)?).ok()
    }
}

/// What a worker says of itself. Fields that a later version adds are ignored by earlier ones, so that a cluster can be
/// upgraded worker by worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where it serves, as `host:port`.
    pub address: String,
    /// Name of its model.
    pub model: String,
    /// Of all that its answers depend on.
    pub fingerprint: String,
    /// Version of its program.
    pub version: String,
    /// How much it takes on.
    pub capacity: Capacity,
    /// When it started, in milliseconds since 1970.
    pub started_ms: u64,
}

/// How much a worker takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Sequences at once.
    pub lanes: u64,
    /// K/V blocks.
    pub blocks: u64,
}

impl Member {
    /// As it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers are valid JSON")
    }

    /// Reads what was stored.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }
}

/// A name that cannot be part of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is no name: use 1 to {LONGEST} letters, digits, '-', '_' or '.'")]
pub struct NameError {
    name: String,
}

fn checked(name: String) -> Result<String, NameError> {
    let is_allowed = |letter: u8| letter.is_ascii_alphanumeric() || b"-_.".contains(&letter);
    match name.len() {
        1..=LONGEST if name.bytes().all(is_allowed) => Ok(name),
        _ => Err(NameError { name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_their_place_in_the_tree_are_refused() {
        for name in ["", "a/b", "a b", "é", &"x".repeat(129)] {
            let message = WorkerId::new(name).unwrap_err().to_string();
            assert!(message.contains("is no name: use 1 to 128 letters"), "{message}");
            assert!(MemberKeys::of(name).is_err());
        }
        let keys = MemberKeys::of("main").unwrap();
        let id = WorkerId::random();
        assert_eq!(keys.key(&WorkerId::new("w-1").unwrap()), "/windlass/v1/main/workers/w-1");
        assert_eq!(keys.id(&keys.key(&id)), Some(id));
        assert_eq!(keys.id("/windlass/v1/main/workers/a/b"), None);
        assert_eq!(keys.id("/windlass/v1/mainly/workers/a"), None);
    }

    #[test]
    fn a_record_of_a_later_version_can_be_read() {
        let member = Member {
            address: "10.0.0.7:8002".into(),
            model: "demo".into(),
            fingerprint: "ff".into(),
            version: "0.1.0".into(),
            capacity: Capacity { lanes: 64, blocks: 1000 },
            started_ms: 1,
        };
        let mut json: serde_json::Value = serde_json::from_slice(&member.to_json()).unwrap();
        json["zone"] = "b".into();
        assert_eq!(Member::from_json(json.to_string().as_bytes()).unwrap(), member);
        json["address"].take();
        assert!(Member::from_json(json.to_string().as_bytes()).is_err());
    }
}
