use std::sync::OnceLock;

use crate::admission::Permit;

/// The right to generate the sequences of one request, held until the last of them ends, and their common fate: when one
/// fails, so do those that are dropped because of it.
#[derive(Debug)]
pub(crate) struct Admission {
    _permit: Permit,
    failure: OnceLock<&'static str>,
}

impl Admission {
    pub(super) fn new(permit: Permit) -> Self {
        Self { _permit: permit, failure: OnceLock::new() }
    }

    /// A sequence failed with an error of this code.
    pub(super) fn fail(&self, code: &'static str) {
        self.failure.get_or_init(|| code);
    }

    /// Code of the error that a sequence failed with first.
    pub(super) fn failure(&self) -> Option<&'static str> {
        self.failure.get().copied()
    }
}
