//! A cluster of etcd that loses its leader.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, bail, ensure};
use windlass_tests::etcd::Etcd;
use windlass_tests::eventually;
use windlass_tests::streams::{answers, requests};

use super::membership::{cluster, has_workers, metrics_have, registered, worker};

const STREAMS: usize = 24;
const TOKENS: usize = 160;

#[tokio::test]
async fn a_lost_leader_fails_no_request_and_membership_goes_on() -> Result<()> {
    let mut etcd = Etcd::of(3, None, &[]).await?;
    let mut cluster = cluster(&etcd, vec![worker(&etcd, "first")?, worker(&etcd, "second")?])?;
    has_workers(&cluster, 2).await?;
    let requests = requests(STREAMS, TOKENS);
    let undisturbed = answers(&cluster, &requests, &AtomicUsize::new(0)).await?;
    let begun = AtomicUsize::new(0);
    let disturbed = async {
        let disturbed = answers(&cluster, &requests, &begun);
        let all_begun =
            eventually("all streams have begun", || async { Ok(begun.load(Ordering::SeqCst) == STREAMS) });
        tokio::pin!(disturbed);
        tokio::select! {
            ended = &mut disturbed => bail!("the streams ended before the fault: {}", ended.is_ok()),
            all_begun = all_begun => all_begun?,
        }
        let leader = etcd.leader().await?;
        etcd.kill(leader)?;
        disturbed.await
    };
    ensure!(disturbed.await? == undisturbed, "an answer is another one than undisturbed");
    // Those that are sent while there is no leader, or a new one.
    ensure!(answers(&cluster, &requests, &begun).await? == undisturbed, "a later answer is another one");

    cluster.workers.push(worker(&etcd, "third")?);
    has_workers(&cluster, 3).await?;
    metrics_have(&cluster, "windlass_registry_up 1").await?;
    ensure!(cluster.workers[0].terminate()?, "it ends well");
    eventually("the others are registered", || async { Ok(registered(&etcd).await? == ["second", "third"]) })
        .await?;
    has_workers(&cluster, 2).await?;
    ensure!(cluster.metric("windlass_migrations_total").await? == 0.0, "a stream was moved");
    ensure!(answers(&cluster, &requests, &begun).await? == undisturbed, "the last answers are others");
    cluster.are_idle(&[1, 2]).await?;
    cluster.coordinator_is_idle().await
}
