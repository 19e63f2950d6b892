//! The same submission under one key is one job.

use futures::future::join_all;
use windlass_jobs::{Jobs, JobsError};
use windlass_proto::v1::{Job, JobSpec};

use crate::answers::items;
use crate::world::{World, for_seeds, submit_items};

fn spec(key: &str) -> JobSpec {
    JobSpec { idempotency_key: Some(key.into()), ..JobSpec::default() }
}

/// As a client would: again and again until there is an answer.
async fn insist(jobs: &Jobs) -> Job {
    for _ in 0..1000 {
        match submit_items(jobs, spec("mine"), items(70)).await {
            Ok(job) => return job,
            Err(JobsError::Store(_) | JobsError::Blob { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("never accepted");
}

#[test]
fn a_submission_that_is_repeated_is_one_job() {
    for_seeds(100, |seed| async move {
        let world = World::new(seed);
        let fronts = [world.jobs_with(15), world.jobs_with(15), world.jobs_with(15)];
        let accepted = join_all(fronts.iter().map(insist)).await;
        assert!(accepted.iter().all(|job| job.id == accepted[0].id), "{accepted:?}");
        assert_eq!(world.keys("records/").await.len(), 1);
        assert_eq!(accepted[0].items, 70);
    });
}

#[test]
fn a_key_of_another_submission_is_refused() {
    for_seeds(1, |seed| async move {
        let jobs = World::new(seed).jobs();
        let first = submit_items(&jobs, spec("mine"), items(3)).await.unwrap();
        let other = submit_items(&jobs, spec("mine"), items(4)).await.unwrap_err();
        let expected = format!("'mine' was used for job {}, whose content differs", first.id);
        assert!(other.to_string().contains(&expected), "{other}");
        let another = submit_items(&jobs, spec("other"), items(3)).await.unwrap();
        assert_ne!(first.id, another.id);
        let empty = submit_items(&jobs, spec(""), items(1)).await.unwrap_err().to_string();
        assert!(empty.starts_with("idempotency_key: it has 0 bytes"), "{empty}");
    });
}
