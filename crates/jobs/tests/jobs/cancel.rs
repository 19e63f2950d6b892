//! A cancelled job stops at once; what is done stays.

use std::sync::atomic::Ordering;
use std::time::Duration;

use windlass_proto::v1::JobState;

use crate::answers::check;
use crate::world::{World, ended, for_seeds, results, submit};

#[test]
fn a_cancelled_job_stops_and_what_is_done_can_be_read() {
    for_seeds(50, |seed| async move {
        let world = World::new(seed);
        let jobs = world.jobs();
        let job = submit(&jobs, 2000).await;
        let _processes = [world.process(5), world.process(5)];
        while jobs.get(&job.id).await.unwrap().succeeded == 0 || world.keys("done/").await.len() < 3 {
            world.dice.wait(200).await;
        }
        let cancelled = jobs.cancel(&job.id).await.unwrap();
        assert_eq!(cancelled.state(), JobState::Cancelled);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let asked = world.answers.asked.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(world.answers.asked.load(Ordering::SeqCst), asked, "it goes on");
        assert_eq!(world.answers.at_once.load(Ordering::SeqCst), 0, "items are still in flight");
        let later = jobs.get(&job.id).await.unwrap();
        assert_eq!(later, cancelled);
        let results = results(&jobs, &job.id).await;
        assert_eq!(results.len() as u64, later.succeeded + later.failed);
        assert!(results.is_sorted_by_key(|result| result.index) && results.len() < 2000);
        results.iter().for_each(|result| check(result, result.index));
    });
}

#[test]
fn a_job_that_has_ended_is_left_as_it_is() {
    for_seeds(1, |seed| async move {
        let world = World::new(seed);
        let jobs = world.jobs();
        let job = submit(&jobs, 10).await;
        let _process = world.process(0);
        let done = ended(&jobs, &job.id).await;
        assert_eq!(jobs.cancel(&job.id).await.unwrap(), done);
        assert_eq!(done.state(), JobState::Succeeded);
        let unknown = jobs.cancel("no-such-job").await.unwrap_err().to_string();
        assert_eq!(unknown, "there is no job 'no-such-job'");
    });
}
