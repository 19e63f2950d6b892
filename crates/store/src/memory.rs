use std::collections::BTreeMap;
use std::ops::Bound;

use crate::embedded::Embedded;
use crate::state::{Values, Write};
use crate::{Entry, Page, Revision, StoreError};

/// A store in memory, for one process and for tests.
pub type MemoryStore = Embedded<MemoryValues>;

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(MemoryValues::default(), 0)
    }
}

/// Values in memory.
#[derive(Debug, Default)]
pub struct MemoryValues {
    entries: BTreeMap<String, Entry>,
}

impl MemoryValues {
    fn of_prefix(&self, prefix: &str, after: Option<&str>) -> impl Iterator<Item = &Entry> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let entries = self.entries.range::<str, _>((start, Bound::Unbounded));
        entries.map(|(_, entry)| entry).take_while(move |entry| entry.key.starts_with(prefix))
    }
}

impl Values for MemoryValues {
    const BLOCKS: bool = false;

    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.entries.get(key).cloned())
    }

    fn list(&self, prefix: &str, page: &Page) -> Result<Vec<Entry>, StoreError> {
        let entries = self.of_prefix(prefix, page.after.as_deref());
        Ok(entries.take(page.most()).cloned().collect())
    }

    fn keys(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.of_prefix(prefix, None).map(|entry| entry.key.clone()).collect())
    }

    fn write(&mut self, _: Revision, writes: &[Write]) -> Result<(), StoreError> {
        for write in writes {
            match write {
                Write::Put(entry, _) => self.entries.insert(entry.key.clone(), entry.clone()),
                Write::Delete(key) => self.entries.remove(key),
            };
        }
        Ok(())
    }
}
