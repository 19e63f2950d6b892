//! Every property of `properties`, for every store.

use std::sync::Arc;

use anyhow::Result;
use windlass_store::{EtcdConfig, EtcdStore, LocalStore, MemoryStore};
use windlass_tests::etcd::Etcd;

use super::properties;

macro_rules! every_store_keeps {
    ($($property:ident),+ $(,)?) => {
        mod memory {
            use super::*;
            $(#[tokio::test]
            async fn $property() -> Result<()> {
                properties::$property(Arc::new(MemoryStore::default())).await
            })+
        }

        mod local {
            use super::*;
            $(#[tokio::test]
            async fn $property() -> Result<()> {
                let folder = tempfile::tempdir()?;
                properties::$property(Arc::new(LocalStore::open(&folder.path().join("store"))?)).await
            })+
        }

        mod etcd {
            use super::*;
            $(#[tokio::test]
            async fn $property() -> Result<()> {
                let etcd = Etcd::start().await?;
                properties::$property(Arc::new(EtcdStore::new(EtcdConfig::new(etcd.endpoints()))?)).await
            })+
        }
    };
}

every_store_keeps!(
    conditions_decide_whether_a_commit_happens,
    a_commit_happens_as_a_whole,
    listings_are_in_order_and_come_in_pages,
    a_long_listing_is_of_one_moment,
    a_watch_tells_every_change_once_and_in_order,
    a_watch_may_begin_in_the_past,
    a_lease_that_ends_takes_its_keys_along,
    a_renewed_lease_lives_on,
    a_revoked_lease_is_lost_with_its_keys,
    a_key_put_again_leaves_its_former_lease,
    what_one_store_refuses_all_refuse,
    concurrent_commits_lose_nothing,
);
