//! A job is its submitter's: others neither see it nor end it.

use futures::stream::TryStreamExt;
use windlass_jobs::{Jobs, JobsError, Party};
use windlass_proto::v1::{GenerationParameters, JobSpec, JobState};

use crate::answers::items;
use crate::world::{World, ended, for_seeds, submit, submit_items};

fn party(name: &str) -> Party {
    Party { name: Some(name.into()), is_operator: false, max_open: None, priority_max: None }
}

async fn listed(jobs: &Jobs) -> Vec<String> {
    jobs.list(None, "").await.unwrap().0.into_iter().map(|job| job.id).collect()
}

#[test]
fn a_job_is_seen_watched_read_and_ended_by_its_owner_and_operators_only() {
    for_seeds(1, |seed| async move {
        let world = World::new(seed);
        let all = world.jobs();
        let (mine, other) = (all.seen_by(party("mine")), all.seen_by(party("other")));
        let operator = all.seen_by(Party { is_operator: true, ..party("operator") });
        let id = submit(&mine, 3).await.id;
        let unowned = submit(&all, 1).await.id;
        assert_eq!(mine.get(&id).await.unwrap().owner, "mine");
        assert_eq!(listed(&mine).await, std::slice::from_ref(&id));
        assert_eq!(listed(&other).await, [""; 0]);
        assert_eq!(listed(&operator).await, [unowned.clone(), id.clone()]);
        let is_hidden = |error: JobsError| matches!(error, JobsError::NotFound { .. });
        assert!(is_hidden(other.get(&id).await.unwrap_err()));
        assert!(is_hidden(mine.get(&unowned).await.unwrap_err()));
        assert!(is_hidden(other.cancel(&id).await.unwrap_err()));
        assert!(is_hidden(other.results(&id, "").unwrap().try_collect::<Vec<_>>().await.unwrap_err()));
        assert!(is_hidden(other.watch(&id).unwrap().try_collect::<Vec<_>>().await.unwrap_err()));
        let process = world.process(0);
        assert_eq!(ended(&mine, &id).await.state(), JobState::Succeeded, "nobody else ended it");
        process.kill().await;
        let second = submit(&mine, 1).await.id;
        assert_eq!(operator.cancel(&second).await.unwrap().state(), JobState::Cancelled);
    });
}

#[test]
fn pages_of_an_owner_are_full_though_others_jobs_lie_between() {
    for_seeds(1, |seed| async move {
        let jobs = World::new(seed).jobs();
        let (mine, other) = (jobs.seen_by(party("mine")), jobs.seen_by(party("other")));
        let mut expected = Vec::new();
        for _ in 0..5 {
            expected.insert(0, submit(&mine, 1).await.id);
            submit(&other, 1).await;
            submit(&other, 1).await;
        }
        let (first, token) = mine.list(Some(3), "").await.unwrap();
        let (second, end) = mine.list(Some(3), &token).await.unwrap();
        assert_eq!((first.len(), second.len(), end.as_str()), (3, 2, ""));
        let ids: Vec<_> = first.into_iter().chain(second).map(|job| job.id).collect();
        assert_eq!(ids, expected);
    });
}

#[test]
fn each_owner_has_idempotency_keys_of_its_own() {
    for_seeds(1, |seed| async move {
        let jobs = World::new(seed).jobs();
        let spec = || JobSpec { idempotency_key: Some("key".into()), ..JobSpec::default() };
        let mut ids = Vec::new();
        for jobs in [jobs.seen_by(party("mine")), jobs.seen_by(party("other")), jobs] {
            let first = submit_items(&jobs, spec(), items(2)).await.unwrap();
            assert_eq!(submit_items(&jobs, spec(), items(2)).await.unwrap().id, first.id);
            ids.push(first.id);
        }
        ids.dedup();
        assert_eq!(ids.len(), 3);
    });
}

#[test]
fn an_owners_open_jobs_and_priorities_are_bounded() {
    for_seeds(1, |seed| async move {
        let jobs = World::new(seed).jobs();
        let mine = jobs.seen_by(Party { max_open: Some(2), priority_max: Some(-20), ..party("mine") });
        submit(&jobs.seen_by(party("other")), 1).await;
        let first = submit(&mine, 1).await;
        submit(&mine, 1).await;
        let full = submit_items(&mine, JobSpec::default(), items(1)).await.unwrap_err().to_string();
        let expected = "2 jobs of API key 'mine' have not ended, and its limit (max_open_jobs) is 2";
        assert!(full.starts_with(expected), "{full}");
        mine.cancel(&first.id).await.unwrap();
        let spec = |priority| JobSpec { priority, ..JobSpec::default() };
        let above = submit_items(&mine, spec(Some(-10)), items(1)).await.unwrap_err().to_string();
        assert_eq!(above, "priority: -10 is above what this API key may ask for: use at most -20");
        let mut urgent = items(2);
        urgent[1].parameters =
            Some(GenerationParameters { priority: Some(0), ..GenerationParameters::default() });
        let above = submit_items(&mine, spec(None), urgent).await.unwrap_err().to_string();
        assert!(above.starts_with("item[1].parameters.priority: 0 is above"), "{above}");
        submit_items(&mine, spec(Some(-20)), items(1)).await.unwrap();
    });
}
