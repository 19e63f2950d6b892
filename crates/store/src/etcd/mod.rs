//! A store over etcd's API, version 3.
//!
//! Nothing here is about a connection once and for all: it is made when first used, and made anew after a call that got
//! no answer, since a connection into a partition may hang for much longer than the partition.

mod call;
mod config;
mod connection;
mod error;
mod watch;

use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Client, Compare, CompareOp, DeleteOptions, Error, GetOptions, PutOptions, Txn, TxnOp};

pub use config::{EtcdConfig, EtcdConfigError, EtcdPassword};

use crate::store::{MAX_OPERATIONS, Store};
use crate::{Condition, Entry, LeaseId, Listing, Operation, Page, Revision, StoreError, Watch};
use call::{Call, Repeat};
use connection::Connection;

/// Entries fetched by one call of a listing.
const PAGE: usize = 512;

/// A store over etcd; clones share its connection.
#[derive(Debug, Clone)]
pub struct EtcdStore {
    connection: Connection,
}

impl EtcdStore {
    /// Checks the configuration. Connects when first used, so etcd may still be away.
    pub fn new(config: EtcdConfig) -> Result<Self, EtcdConfigError> {
        Ok(Self { connection: Connection::new(config)? })
    }

    /// The entries from `start` up to `end`, as they were at `revision` if that is not 0.
    async fn range(
        &self,
        start: Vec<u8>,
        end: &[u8],
        limit: usize,
        revision: Revision,
    ) -> Result<Range, StoreError> {
        let options =
            GetOptions::new().with_range(end).with_limit(limit as i64).with_revision(revision as i64);
        let call = |client: Client| -> Call<_> {
            let (start, options) = (start.clone(), options.clone());
            let mut values = client.kv_client().max_decoding_message_size(usize::MAX);
            Box::pin(async move { values.get(start, Some(options)).await })
        };
        let mut response = self.connection.call(Repeat::Freely, call).await?;
        let entries = response.take_kvs().into_iter().map(entry).collect::<Result<_, _>>()?;
        let at = if revision == 0 { header_revision(response.header()) } else { revision };
        Ok(Range { entries, more: response.more(), revision: at })
    }
}

/// Part of a listing.
struct Range {
    entries: Vec<Entry>,
    more: bool,
    revision: Revision,
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let call = |client: Client| -> Call<_> {
            let key = key.to_owned();
            Box::pin(async move { client.kv_client().get(key, None).await })
        };
        let mut response = self.connection.call(Repeat::Freely, call).await?;
        response.take_kvs().pop().map(entry).transpose()
    }

    async fn list(&self, prefix: &str, page: Page) -> Result<Listing, StoreError> {
        let end = behind_prefix(prefix);
        let mut start = match page.after.as_deref() {
            Some(after) if after >= prefix => behind(after),
            _ if prefix.is_empty() => vec![0],
            _ => prefix.into(),
        };
        let mut listing = Listing { entries: Vec::new(), revision: 0 };
        loop {
            let missing = page.most() - listing.entries.len();
            let Range { entries, more, revision } =
                self.range(start, &end, missing.min(PAGE), listing.revision).await?;
            listing.revision = revision;
            listing.entries.extend(entries);
            match listing.entries.last() {
                Some(last) if more && listing.entries.len() < page.most() => start = behind(&last.key),
                _ => return Ok(listing),
            }
        }
    }

    async fn commit(
        &self,
        conditions: Vec<Condition>,
        operations: Vec<Operation>,
    ) -> Result<Option<Revision>, StoreError> {
        let most = conditions.len().max(operations.len());
        if most > MAX_OPERATIONS {
            let reason = format!("a commit of {most} conditions or operations: use at most {MAX_OPERATIONS}");
            return Err(StoreError::Refused { reason });
        }
        let compares: Vec<_> = conditions.into_iter().map(compare).collect();
        let operations: Vec<_> = operations.into_iter().map(operation).collect();
        let transaction = Txn::new().when(compares).and_then(operations);
        let call = |client: Client| -> Call<_> {
            let transaction = transaction.clone();
            Box::pin(async move { client.kv_client().txn(transaction).await })
        };
        let response = self.connection.call(Repeat::UnlessSent, call).await?;
        Ok(response.succeeded().then(|| header_revision(response.header())))
    }

    async fn grant(&self, time_to_live: Duration) -> Result<LeaseId, StoreError> {
        let seconds = time_to_live.as_secs_f64().ceil().max(1.0) as i64;
        let call = |client: Client| -> Call<_> {
            Box::pin(async move { client.lease_client().grant(seconds, None).await })
        };
        // A lease that was granted twice is left to end by itself.
        Ok(LeaseId(self.connection.call(Repeat::Freely, call).await?.id()))
    }

    async fn renew(&self, lease: LeaseId) -> Result<(), StoreError> {
        let call = |client: Client| -> Call<_> {
            Box::pin(async move { client.lease_client().keep_alive(lease.0).await })
        };
        self.connection.call(Repeat::Freely, call).await.map(|_| ())
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let call = |client: Client| -> Call<_> {
            Box::pin(async move { client.lease_client().revoke(lease.0).await })
        };
        match self.connection.call(Repeat::Freely, call).await {
            Ok(_) | Err(StoreError::LeaseLost) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        watch::watch(&self.connection, prefix, after).await
    }
}

fn compare(condition: Condition) -> Compare {
    match condition {
        Condition::Absent(key) => Compare::create_revision(key, CompareOp::Equal, 0),
        Condition::Present(key) => Compare::create_revision(key, CompareOp::Greater, 0),
        Condition::Unchanged(key, revision) => Compare::mod_revision(key, CompareOp::Equal, revision as i64),
    }
}

fn operation(operation: Operation) -> TxnOp {
    match operation {
        Operation::Put { key, value, lease } => {
            TxnOp::put(key, value, lease.map(|lease| PutOptions::new().with_lease(lease.0)))
        }
        Operation::Delete(key) => TxnOp::delete(key, None),
        Operation::DeletePrefix(prefix) => TxnOp::delete(prefix, Some(DeleteOptions::new().with_prefix())),
    }
}

fn entry(found: etcd_client::KeyValue) -> Result<Entry, StoreError> {
    let revision = found.mod_revision() as Revision;
    let (key, value) = found.into_key_value();
    let key = String::from_utf8(key).map_err(|error| {
        let key = String::from_utf8_lossy(error.as_bytes()).into_owned();
        StoreError::Damaged { reason: format!("the key '{key}' is not UTF-8: delete it") }
    })?;
    Ok(Entry { key, value, revision })
}

fn header_revision(header: Option<&etcd_client::ResponseHeader>) -> Revision {
    header.map_or(0, |header| header.revision() as Revision)
}

/// The first key behind `key`.
fn behind(key: &str) -> Vec<u8> {
    [key.as_bytes(), &[0]].concat()
}

/// The first key behind all that begin with `prefix`.
fn behind_prefix(prefix: &str) -> Vec<u8> {
    // UTF-8 has no byte 255, so the last one can always be increased; without any, etcd takes 0 for the end of all.
    let mut end = prefix.as_bytes().to_vec();
    match end.last_mut() {
        Some(last) => *last += 1,
        None => end.push(0),
    }
    end
}

/// Whether etcd said that there is no such lease.
fn is_lease_lost(error: &Error) -> bool {
    match error {
        Error::LeaseKeepAliveError(reason) => reason.contains("lease not found"),
        Error::GRpcStatus(status) => status.message().contains("lease not found"),
        _ => false,
    }
}
