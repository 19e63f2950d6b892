//! A submission is a job as a whole, or nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use windlass_jobs::JobsError;
use windlass_proto::v1::{GenerationParameters, JobItem, JobSpec, JobState};

use crate::answers::items;
use crate::world::{World, ended, for_seeds, submit, submit_items};

#[test]
fn what_is_refused_or_breaks_off_leaves_nothing() {
    for_seeds(1, |seed| async move {
        let world = World::new(seed);
        let jobs = world.jobs();
        let mut nameless = items(100);
        nameless[90].prompt = None;
        let error = submit_items(&jobs, JobSpec::default(), nameless).await.unwrap_err().to_string();
        assert!(error.starts_with("item[90].prompt: it is missing"), "{error}");
        let mut unsure = items(70);
        let parameters = GenerationParameters { logprobs: Some(1), ..GenerationParameters::default() };
        unsure[69].parameters = Some(parameters);
        let error = submit_items(&jobs, JobSpec::default(), unsure).await.unwrap_err().to_string();
        assert!(error.starts_with("item[69].parameters.logprobs: results have none"), "{error}");
        let broken = Err(JobsError::BrokenOff { reason: "gone".into() });
        let broken = stream::iter(items(130).into_iter().map(Ok).chain([broken]));
        assert!(jobs.submit(JobSpec::default(), broken).await.is_err());
        let none = submit_items(&jobs, JobSpec::default(), Vec::new()).await.unwrap_err().to_string();
        assert_eq!(none, "item: there is none: send at least one");
        assert_eq!(world.keys("").await, [""; 0]);
        assert_eq!(world.objects().await, [""; 0]);
    });
}

#[test]
fn what_a_dead_front_left_is_swept_and_what_is_under_way_is_not() {
    for_seeds(5, |seed| async move {
        let world = World::new(seed);
        let jobs = world.jobs();
        let kept = submit(&jobs, 3).await;
        let endless = || stream::iter(items(100).into_iter().map(Ok)).chain(stream::pending());
        let front = world.jobs();
        let under_way = tokio::spawn(async move { front.submit(JobSpec::default(), endless()).await });
        while world.objects().await.len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let _process = world.process(0);
        tokio::time::sleep(Duration::from_secs(1000)).await;
        let of_kept = |object: &String| object.starts_with(&kept.id);
        assert!(!world.objects().await.iter().all(of_kept), "it was swept while it was under way");
        under_way.abort();
        tokio::time::sleep(Duration::from_secs(1000)).await;
        let objects = world.objects().await;
        assert!(objects.len() >= 2 && objects.iter().all(of_kept), "{objects:?}");
        assert_eq!(world.keys("folders/").await.len(), 1);
    });
}

#[test]
fn a_job_that_was_accepted_unheard_keeps_its_items() {
    // The last of five attempts is heard, or none.
    for_seeds(6, |unanswered| async move {
        let world = World::new(unanswered);
        let jobs = world.jobs();
        world.unanswered.store(unanswered as u32, Ordering::SeqCst);
        let submitted = submit_items(&jobs, JobSpec::default(), items(3)).await;
        assert_eq!(submitted.is_ok(), unanswered < 5, "{submitted:?}");
        let job = jobs.list(None, "").await.unwrap().0.remove(0);
        let _process = world.process(0);
        let job = ended(&jobs, &job.id).await;
        assert_eq!(job.state(), JobState::Succeeded, "{}", job.error);
    });
}

#[test]
fn an_accepted_job_is_there_for_everyone_at_once() {
    for_seeds(1, |seed| async move {
        let world = World::new(seed);
        let bare = |mut item: JobItem| {
            item.id.clear();
            item
        };
        let items = items(2).into_iter().map(bare).collect();
        let job = submit_items(&world.jobs(), JobSpec::default(), items).await.unwrap();
        let other = world.jobs();
        assert_eq!(other.get(&job.id).await.unwrap(), job);
        let _process = world.process(0);
        let results = crate::world::results(&other, &job.id).await;
        let ids: Vec<_> = results.iter().map(|result| result.id.as_str()).collect();
        assert_eq!(ids, ["0", "1"], "an item without a name goes by its index");
    });
}
