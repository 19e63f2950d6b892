//! Whoever watches a job sees it go on, item by item where the same process works on it, and end.

use std::sync::Arc;

use futures::stream::StreamExt;
use windlass_proto::v1::JobState;

use crate::world::{World, for_seeds, submit};

#[test]
fn progress_grows_and_ends_with_the_job() {
    for_seeds(30, |seed| async move {
        let world = World::new(seed);
        let jobs = world.jobs();
        let job = submit(&jobs, 300).await;
        let mut watch = Box::pin(jobs.watch(&job.id).unwrap());
        let mut seen = vec![watch.next().await.unwrap().unwrap()];
        let (running, answers) = (jobs.clone(), Arc::clone(&world.answers));
        let process = tokio::spawn(async move { running.run(answers, std::future::pending()).await });
        while let Some(job) = watch.next().await {
            seen.push(job.unwrap());
        }
        process.abort();
        assert_eq!(seen[0].state(), JobState::Queued);
        let last = seen.last().unwrap();
        assert_eq!((last.state(), last.succeeded + last.failed), (JobState::Succeeded, 300));
        assert!(seen.is_sorted_by_key(|job| job.succeeded + job.failed), "it went backwards");
        assert!(seen.iter().any(|job| (job.succeeded + job.failed) % 64 != 0), "only whole shards are seen");
        assert!(seen.iter().all(|job| job.succeeded + job.failed <= 300));
    });
}
