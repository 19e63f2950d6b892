//! A job whose model nobody serves waits, and holds up no other.

use std::sync::atomic::Ordering;
use std::time::Duration;

use windlass_jobs::Jobs;
use windlass_proto::v1::{Job, JobSpec, JobState};

use crate::answers::{RARE, items};
use crate::world::{World, ended, for_seeds, submit, submit_items};

/// One with more shards than are worked on at once.
async fn submit_rare(jobs: &Jobs) -> Job {
    let spec = JobSpec { model: RARE.into(), ..JobSpec::default() };
    submit_items(jobs, spec, items(300)).await.unwrap()
}

#[test]
fn a_job_whose_model_has_not_come_yet_waits_and_others_go_on() {
    for_seeds(5, |seed| async move {
        let world = World::new(seed);
        let jobs = world.jobs();
        world.answers.is_rare_away.store(true, Ordering::SeqCst);
        let (rare, other) = (submit_rare(&jobs).await, submit(&jobs, 300).await);
        let _process = world.process(0);
        assert_eq!(ended(&jobs, &other.id).await.state(), JobState::Succeeded);
        assert_eq!(jobs.get(&rare.id).await.unwrap().state(), JobState::Queued);
        world.answers.is_rare_away.store(false, Ordering::SeqCst);
        assert_eq!(ended(&jobs, &rare.id).await.state(), JobState::Succeeded);
    });
}

#[test]
fn a_job_whose_model_goes_away_gives_its_place_to_others() {
    for_seeds(5, |seed| async move {
        let world = World::new(seed);
        let jobs = world.jobs();
        let rare = submit_rare(&jobs).await;
        let _process = world.process(0);
        while world.keys("claims/").await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.answers.is_rare_away.store(true, Ordering::SeqCst);
        let other = submit(&jobs, 300).await;
        assert_eq!(ended(&jobs, &other.id).await.state(), JobState::Succeeded);
        assert_eq!(world.keys("claims/").await, [""; 0]);
        assert!(jobs.get(&rare.id).await.unwrap().ended_ms.is_none());
        world.answers.is_rare_away.store(false, Ordering::SeqCst);
        assert_eq!(ended(&jobs, &rare.id).await.state(), JobState::Succeeded);
    });
}

#[test]
fn a_model_that_is_back_soon_costs_no_answer() {
    for_seeds(1, |seed| async move {
        let world = World::new(seed);
        let jobs = world.jobs();
        let rare = submit_rare(&jobs).await;
        let _process = world.process(0);
        while jobs.get(&rare.id).await.unwrap().succeeded == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.answers.is_rare_away.store(true, Ordering::SeqCst);
        let claims = world.keys("claims/").await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(world.keys("claims/").await, claims);
        // Nor does one whose worker drains for long.
        world.answers.drains.store(true, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(world.keys("claims/").await, claims);
        world.answers.is_rare_away.store(false, Ordering::SeqCst);
        assert_eq!(ended(&jobs, &rare.id).await.state(), JobState::Succeeded);
    });
}
