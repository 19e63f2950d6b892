use crate::record::Record;

/// Who asks about jobs, and what of them is theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// Whom jobs belong to that are submitted; `None`: to nobody, as where there are no names.
    pub name: Option<String>,
    /// Sees and ends all jobs, not only those of its name.
    pub is_operator: bool,
    /// Most jobs of its name that have not ended.
    pub max_open: Option<usize>,
    /// Highest priority of its jobs and their items.
    pub priority_max: Option<i32>,
}

impl Party {
    /// Where nobody has a name: every job is everyone's.
    pub fn anyone() -> Self {
        Self { name: None, is_operator: true, max_open: None, priority_max: None }
    }

    pub(crate) fn sees(&self, record: &Record) -> bool {
        self.is_operator || (self.name.is_some() && self.name == record.owner)
    }
}
