//! Every item has exactly one result, in order, whoever dies and whatever fails.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use url::Url;
use windlass_jobs::{Jobs, result_line};
use windlass_proto::v1::{Job, JobSpec, JobState};
use windlass_store::{Change, Store, Watch};

use crate::answers::{check, items};
use crate::world::{World, ended, for_seeds, results, submit, submit_items};

#[test]
fn whoever_dies_every_item_has_one_result_in_order() {
    for_seeds(200, |seed| async move {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(seed);
        world.config.uris = vec![Url::from_directory_path(folder.path()).unwrap()];
        let jobs = world.jobs();
        let counts = [1 + world.dice.roll(400), 1 + world.dice.roll(100)];
        let outputs = ["first/out.jsonl", "second.jsonl"].map(|name| folder.path().join(name));
        let mut shards = world.store.watch("/windlass/v1/main/jobs/done/", 0).await.unwrap();
        let submitted =
            [submit_to(&jobs, counts[0], &outputs[0]).await, submit_to(&jobs, counts[1], &outputs[1]).await];
        let mut processes = [Some(world.process(10)), Some(world.process(10)), None];
        let end = async {
            let said = join_all(submitted.iter().map(|job| results(&jobs, &job.id))).await;
            for job in &submitted {
                let job = ended(&jobs, &job.id).await;
                assert_eq!(job.state(), JobState::Succeeded, "{}", job.error);
            }
            said
        };
        let said = tokio::select! {
            said = end => said,
            () = world.havoc(&mut processes) => unreachable!("there is no end of it"),
        };
        // Also what was on its way must not count.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let expected = counts.iter().map(|count| count.div_ceil(64)).sum::<u64>();
        assert_eq!(done_once(&mut shards).await, expected);
        for (((job, count), output), said) in submitted.iter().zip(counts).zip(&outputs).zip(said) {
            assert_eq!(said.len() as u64, count);
            said.iter().zip(0..).for_each(|(result, index)| check(result, index));
            assert_eq!(results(&jobs, &job.id).await, said, "what was said once is said again");
            let lines: Vec<_> = said.iter().map(result_line).collect();
            assert_eq!(fs::read_to_string(output).unwrap().lines().collect::<Vec<_>>(), lines);
            let job = jobs.get(&job.id).await.unwrap();
            let failed = (0..count).filter(|index| index % 10 == 7).count() as u64;
            assert_eq!((job.succeeded, job.failed), (count - failed, failed));
        }
    });
}

async fn submit_to(jobs: &Jobs, count: u64, output: &Path) -> Job {
    let output_uri = Some(Url::from_file_path(output).unwrap().to_string());
    submit_items(jobs, JobSpec { output_uri, ..JobSpec::default() }, items(count)).await.unwrap()
}

/// How many shards have become done, each once.
async fn done_once(changes: &mut Watch) -> u64 {
    let mut shards = BTreeSet::new();
    while let Ok(change) = tokio::time::timeout(Duration::from_secs(1), changes.next()).await {
        if let Change::Put(entry) = change.unwrap() {
            assert!(shards.insert(entry.key.clone()), "{} is done twice", entry.key);
        }
    }
    shards.len() as u64
}

#[test]
fn no_more_items_are_in_flight_than_allowed() {
    for_seeds(3, |seed| async move {
        let mut world = World::new(seed);
        world.config.concurrency = 10;
        let jobs = world.jobs();
        let job = submit(&jobs, 300).await;
        let process = world.process(0);
        ended(&jobs, &job.id).await;
        process.kill().await;
        assert_eq!(world.answers.most_at_once.load(std::sync::atomic::Ordering::SeqCst), 10);
    });
}
