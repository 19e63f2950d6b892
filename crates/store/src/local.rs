use std::fs::File;
use std::ops::Bound;
use std::path::Path;

use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};

use crate::embedded::Embedded;
use crate::state::{Values, Write};
use crate::{Entry, Page, Revision, StoreError};

type Stored = (Revision, &'static [u8]);

/// Keys, with the commit that wrote them and what it wrote.
const VALUES: TableDefinition<'_, &str, Stored> = TableDefinition::new("values");
/// The keys under a lease.
const LEASED: TableDefinition<'_, &str, ()> = TableDefinition::new("leased");
/// The layout of the file and the last revision.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const LAYOUT: (&str, u64) = ("layout", 1);
const REVISION: &str = "revision";

/// Memory for parts of the file.
const CACHE_BYTES: usize = 64 << 20;

/// A store in a local file, for one process at a time.
///
/// A commit is on the disk when it returns. Leases live as long as the process: their keys are gone when the file is
/// opened again. So is the history, and a watch can begin no earlier.
pub type LocalStore = Embedded<FileValues>;

impl LocalStore {
    /// Opens the file, or makes it. Blocks, for longer after a crash.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let name = path.display();
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path);
        let database = database.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::Refused {
                reason: format!("{name} is in use by another process: end that one, or name another file"),
            },
            error => StoreError::Damaged { reason: format!("{name}: {error}") },
        })?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // Its commits sync the file, but not the folder that a new one was added to.
        let synced = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
        synced.map_err(|error| StoreError::Damaged { reason: format!("the folder of {name}: {error}") })?;
        let values = FileValues { database };
        let revision = values.begin(&name.to_string())?;
        Ok(Self::new(values, revision))
    }
}

/// Values in a file.
#[derive(Debug)]
pub struct FileValues {
    database: Database,
}

impl FileValues {
    /// Makes the tables and deletes what was under leases; the revision it is at then.
    fn begin(&self, file: &str) -> Result<Revision, StoreError> {
        let transaction = self.database.begin_write().map_err(damaged)?;
        let revision = {
            let mut numbers = transaction.open_table(NUMBERS).map_err(damaged)?;
            let layout = numbers.get(LAYOUT.0).map_err(damaged)?.map(|layout| layout.value());
            if let Some(layout) = layout.filter(|layout| *layout != LAYOUT.1) {
                let reason = format!("{file} has layout {layout} and this version reads {}", LAYOUT.1);
                return Err(StoreError::Damaged { reason });
            }
            numbers.insert(LAYOUT.0, LAYOUT.1).map_err(damaged)?;
            let last = numbers.get(REVISION).map_err(damaged)?.map_or(0, |revision| revision.value());
            let mut values = transaction.open_table(VALUES).map_err(damaged)?;
            let mut leased = transaction.open_table(LEASED).map_err(damaged)?;
            while let Some((key, ())) =
                leased.pop_first().map_err(damaged)?.map(|(key, _)| (key.value().to_owned(), ()))
            {
                values.remove(key.as_str()).map_err(damaged)?;
            }
            // Whoever remembers the last revision has not seen these deletes.
            numbers.insert(REVISION, last + 1).map_err(damaged)?;
            last + 1
        };
        transaction.commit().map_err(damaged)?;
        Ok(revision)
    }

    fn read(&self) -> Result<ReadTransaction, StoreError> {
        self.database.begin_read().map_err(damaged)
    }

    /// Shows entries of a prefix, in order, until `visit` has had enough.
    fn visit(
        &self,
        prefix: &str,
        after: Option<&str>,
        mut visit: impl FnMut(&str, (Revision, &[u8])) -> bool,
    ) -> Result<(), StoreError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let values = self.read()?.open_table(VALUES).map_err(damaged)?;
        for found in values.range::<&str>((start, Bound::Unbounded)).map_err(damaged)? {
            let (key, stored) = found.map_err(damaged)?;
            if !key.value().starts_with(prefix) || !visit(key.value(), stored.value()) {
                break;
            }
        }
        Ok(())
    }
}

impl Values for FileValues {
    const BLOCKS: bool = true;

    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let values = self.read()?.open_table(VALUES).map_err(damaged)?;
        let found = values.get(key).map_err(damaged)?;
        Ok(found.map(|stored| entry(key, stored.value())))
    }

    fn list(&self, prefix: &str, page: &Page) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        self.visit(prefix, page.after.as_deref(), |key, stored| {
            entries.push(entry(key, stored));
            entries.len() < page.most()
        })?;
        Ok(entries)
    }

    fn keys(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut keys = Vec::new();
        self.visit(prefix, None, |key, _| {
            keys.push(key.to_owned());
            true
        })?;
        Ok(keys)
    }

    fn write(&mut self, revision: Revision, writes: &[Write]) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(damaged)?;
        {
            let mut values = transaction.open_table(VALUES).map_err(damaged)?;
            let mut leased = transaction.open_table(LEASED).map_err(damaged)?;
            for write in writes {
                let (Write::Put(Entry { key, .. }, _) | Write::Delete(key)) = write;
                if let Write::Put(Entry { value, .. }, _) = write {
                    values.insert(key.as_str(), (revision, value.as_slice())).map_err(damaged)?;
                } else {
                    values.remove(key.as_str()).map_err(damaged)?;
                }
                if matches!(write, Write::Put(_, Some(_))) {
                    leased.insert(key.as_str(), ()).map_err(damaged)?;
                } else {
                    leased.remove(key.as_str()).map_err(damaged)?;
                }
            }
            let mut numbers = transaction.open_table(NUMBERS).map_err(damaged)?;
            numbers.insert(REVISION, revision).map_err(damaged)?;
        }
        transaction.commit().map_err(damaged)
    }
}

fn entry(key: &str, (revision, value): (Revision, &[u8])) -> Entry {
    Entry { key: key.to_owned(), value: value.to_vec(), revision }
}

fn damaged(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Damaged { reason: error.into().to_string() }
}
