use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::http::HeaderMap;
use subtle::ConstantTimeEq;
use tokio::time::interval;

use super::authorization::{KeyDigest, Unauthorized, presented};
use super::caller::Caller;
use super::key_file::{KeyEntry, read_file, read_pair, refuse_doubles};
use super::limits::Account;
use crate::error::CoordinatorError;

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The keys that open the fronts. A file that changes is read again; one that is broken changes nothing.
pub(crate) struct Keyring {
    file: Option<PathBuf>,
    /// From the settings; they never change.
    fixed: Vec<KeyEntry>,
    keys: RwLock<Keys>,
    /// The file's text when last looked at, or why it could not be read.
    seen: Mutex<Result<String, String>>,
}

#[derive(Default)]
struct Keys {
    callers: Vec<(KeyDigest, Caller)>,
    accounts: BTreeMap<String, Arc<Account>>,
}

impl Keyring {
    /// The keys of the settings `api_keys_file` and `api_keys`; `None` where neither is set.
    pub(crate) fn load(file: Option<&Path>, pairs: &[String]) -> Result<Option<Self>, CoordinatorError> {
        if file.is_none() && pairs.is_empty() {
            return Ok(None);
        }
        let invalid = |field| move |reason| CoordinatorError::Config { field, reason };
        let fixed: Vec<_> = pairs
            .iter()
            .map(|pair| read_pair(pair))
            .collect::<Result<_, _>>()
            .map_err(invalid("api_keys"))?;
        refuse_doubles(&fixed).map_err(invalid("api_keys"))?;
        let text = file.map_or_else(|| Ok(String::new()), read).map_err(invalid("api_keys_file"))?;
        let keyring = Self {
            file: file.map(Path::to_owned),
            fixed,
            keys: RwLock::default(),
            seen: Mutex::new(Ok(text.clone())),
        };
        let count = keyring.take(&text).map_err(invalid("api_keys_file"))?;
        if count == 0 {
            tracing::warn!("there is no API key: every request is refused until api_keys_file has one");
        }
        Ok(Some(keyring))
    }

    /// Whose key these headers bring.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Unauthorized> {
        let digest = presented(headers)?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        // All are compared, each to its end, so that time tells nothing.
        let mut found = None;
        for (known, caller) in &keys.callers {
            if bool::from(known.ct_eq(&digest)) {
                found = Some(caller);
            }
        }
        found.cloned().ok_or(Unauthorized::Unknown)
    }

    /// Looks at the file again and again, and takes over what changed.
    pub(crate) async fn follow_file(self: Arc<Self>) {
        let mut looks = interval(LOOK_INTERVAL);
        loop {
            looks.tick().await;
            let keyring = Arc::clone(&self);
            // Blocking, as the file may lie on a network.
            let _ = tokio::task::spawn_blocking(move || keyring.look()).await;
        }
    }

    fn look(&self) {
        let Some(file) = &self.file else { return };
        let text = read(file);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == text {
            return;
        }
        match text.as_ref().map_err(Clone::clone).and_then(|text| self.take(text)) {
            Ok(keys) => tracing::info!(keys, "the file of API keys was read again"),
            Err(error) => tracing::error!(
                field = "api_keys_file",
                error,
                "the file of API keys changed and cannot be used: the old keys stay"
            ),
        }
        *seen = text;
    }

    /// Takes over the file's keys; returns how many there are now. Accounts of names that stay go on.
    fn take(&self, text: &str) -> Result<usize, String> {
        let mut entries = read_file(text)?;
        entries.extend(self.fixed.iter().cloned());
        refuse_doubles(&entries)?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Keys::default();
        for KeyEntry { name, digest, is_admin, limits } in entries {
            let account = match keys.accounts.get(&name) {
                Some(account) => {
                    account.change(limits);
                    Arc::clone(account)
                }
                None => Arc::new(Account::new(&name, limits)),
            };
            taken.callers.push((digest, Caller::new(Arc::clone(&account), is_admin)));
            taken.accounts.insert(name, account);
        }
        *keys = taken;
        Ok(keys.callers.len())
    }
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}
