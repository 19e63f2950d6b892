use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::JobsError;

/// Names a job. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct JobId(Uuid);

impl JobId {
    /// One that nobody else has.
    pub(crate) fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Text that sorts the newest job first.
    pub(crate) fn newest_first(self) -> String {
        format!("{:032x}", !self.0.as_u128())
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for JobId {
    type Err = JobsError;

    /// What is no id names no job.
    fn from_str(text: &str) -> Result<Self, JobsError> {
        text.parse().map(Self).map_err(|_| JobsError::NotFound { id: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_age_both_ways() {
        let ids: Vec<_> = (0..100).map(|_| JobId::new()).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().rev().map(|id| id.newest_first()).is_sorted());
        assert_eq!(ids[3].to_string().parse::<JobId>().unwrap(), ids[3]);
    }
}
