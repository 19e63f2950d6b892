use std::sync::Arc;

use tonic::Extensions;
use windlass_jobs::Party;

use super::limits::{Account, Allowance, OverLimit};

/// Who sent a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    account: Option<Arc<Account>>,
    is_admin: bool,
}

impl Caller {
    /// Anyone, where no keys are configured: nothing is refused.
    pub(crate) fn anyone() -> Self {
        Self { account: None, is_admin: true }
    }

    pub(super) fn new(account: Arc<Account>, is_admin: bool) -> Self {
        Self { account: Some(account), is_admin }
    }

    /// Who the door of a front let in; anyone, where there is no door.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(Self::anyone)
    }

    /// Whether the caller may change what workers do, and sees everyone's jobs.
    pub(crate) fn is_admin(&self) -> bool {
        self.is_admin
    }

    /// Takes one request of `sequences` out of the caller's limits.
    pub(crate) fn admit(&self, sequences: u32) -> Result<Option<Allowance>, OverLimit> {
        self.account.as_ref().map(|account| account.admit(sequences)).transpose()
    }

    /// The caller as jobs know it: an admin sees all of them.
    pub(crate) fn party(&self) -> Party {
        let Some(account) = &self.account else { return Party::anyone() };
        let limits = account.limits();
        Party {
            name: Some(account.name().to_owned()),
            is_operator: self.is_admin,
            max_open: limits.max_open_jobs.map(|limit| limit as usize),
            priority_max: limits.priority_max,
        }
    }

    /// The highest priority that the caller may ask for.
    pub(crate) fn priority_max(&self) -> Option<i32> {
        self.account.as_ref().and_then(|account| account.limits().priority_max)
    }
}
