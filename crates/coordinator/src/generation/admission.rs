use std::sync::OnceLock;

use crate::admission::Permit;
use crate::security::Allowance;

/// The right to generate the sequences of one request, held until the last of them ends, and their common fate: when one
/// fails, so do those that are dropped because of it.
#[derive(Debug)]
pub(crate) struct Admission {
    _permit: Permit,
    /// `None`: the caller has no limits.
    allowance: Option<Allowance>,
    failure: OnceLock<&'static str>,
}

impl Admission {
    pub(super) fn new(permit: Permit, allowance: Option<Allowance>) -> Self {
        Self { _permit: permit, allowance, failure: OnceLock::new() }
    }

    /// Charges what a sequence used to the caller.
    pub(super) fn charge(&self, tokens: u64) {
        if let Some(allowance) = &self.allowance {
            allowance.charge(tokens);
        }
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
