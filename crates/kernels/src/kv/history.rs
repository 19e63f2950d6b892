//! What has changed in a table lately, so that a device's copy can be brought up to date by that alone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

/// Changes that are remembered: more than a chunk of a prompt of several hundred positions makes at one depth.
const REMEMBERED: usize = 512;

/// A place of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The block of a slot at position / [`BLOCK_POSITIONS`](super::BLOCK_POSITIONS).
    Block(u32, usize),
    /// The highest slot of a position.
    TopSlot(usize),
}

/// The last changes of a table, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    /// That of the table before the first change that is remembered.
    first_version: u64,
    /// Each with the table's version behind it.
    changes: VecDeque<(u64, Entry)>,
}

impl History {
    /// Differs from that of every table that holds anything else.
    pub(super) fn version(&self) -> u64 {
        self.changes.back().map_or(self.first_version, |(version, _)| *version)
    }

    /// Makes room, so that noting allocates nothing.
    pub(super) fn reserve(&mut self) {
        self.changes.reserve(REMEMBERED - self.changes.len());
    }

    /// An entry holds something else.
    pub(super) fn note(&mut self, entry: Entry) {
        if self.changes.len() == REMEMBERED
            && let Some((version, _)) = self.changes.pop_front()
        {
            self.first_version = version;
        }
        self.changes.push_back((new_version(), entry));
    }

    /// Nothing is as it was.
    pub(super) fn forget(&mut self) {
        self.changes.clear();
        self.first_version = new_version();
    }

    /// The entries that changed since the table had `version`; none where that is not known.
    pub(super) fn since(&self, version: u64) -> Option<impl Iterator<Item = Entry>> {
        let first = if version == self.first_version {
            0
        } else {
            1 + self.changes.binary_search_by_key(&version, |(version, _)| *version).ok()?
        };
        Some(self.changes.range(first..).map(|(_, entry)| *entry))
    }
}

fn new_version() -> u64 {
    static VERSIONS: AtomicU64 = AtomicU64::new(1);
    VERSIONS.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(history: &History, version: u64) -> Option<Vec<Entry>> {
        history.since(version).map(Iterator::collect)
    }

    #[test]
    fn what_changed_since_a_version_is_known_as_long_as_it_is_remembered() {
        let mut history = History::default();
        assert_eq!(since(&history, history.version()), Some(vec![]));
        let mut versions = vec![history.version()];
        for position in 0..REMEMBERED + 2 {
            history.note(Entry::TopSlot(position));
            versions.push(history.version());
        }
        let all: Vec<_> = (0..REMEMBERED + 2).map(Entry::TopSlot).collect();
        for (changes, &version) in versions.iter().enumerate() {
            let known = (changes >= 2).then(|| all[changes..].to_vec());
            assert_eq!(since(&history, version), known, "after {changes} changes");
        }
        let before = history.version();
        history.forget();
        assert_eq!(since(&history, before), None);
        history.note(Entry::Block(3, 4));
        assert_eq!(since(&history, before), None);
        assert_eq!(since(&History::default(), before), None);
    }
}
