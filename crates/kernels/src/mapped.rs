//! A file mapped into memory, read-only.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::{Mmap, UncheckedAdvice};

/// The bytes of a file, paged in as they are read.
#[derive(Debug)]
pub struct MappedFile {
    map: Mmap,
}

impl MappedFile {
    /// Maps the whole file. The file must not be cut short or rewritten in place while it is mapped; replacing it by
    /// renaming another over it is fine.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is private to this value and never written through. Other processes changing the file
        // under us is the one hazard left; the contract above forbids it, as for every program that maps its weights.
        #[expect(unsafe_code, reason = "a mapping is only sound while nobody truncates the file")]
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Self { map })
    }

    /// Gives back the memory that `range` takes once read. Who reads there again gets the bytes from the file.
    ///
    /// # Panics
    /// If the file has no such range.
    pub fn forget(&self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.map.len(), "{range:?} of {}", self.map.len());
        // SAFETY: the range lies within the mapping, which is never written through, so nothing is lost.
        #[expect(unsafe_code, reason = "the pages of a mapping that somebody wrote would be lost")]
        let forgotten =
            unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
        // A kernel that does not, keeps more in memory than it had to.
        drop(forgotten);
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
