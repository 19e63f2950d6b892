//! Jobs over gRPC, through the typed client.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::support::{FakeWorker, Front, Otherwise, Script, eventually};
use futures::stream::{self, StreamExt, TryStreamExt};
use windlass_client::{Client, ClientError, GenerateOptions, JobItem, JobSpec, JobState};
use windlass_jobs::{Blobs, Jobs, JobsConfig};
use windlass_proto::v1::{item_result, job_item};
use windlass_store::MemoryStore;

/// A front that keeps jobs in a folder.
struct Keeping {
    front: Front,
    client: Client,
    _folder: tempfile::TempDir,
}

async fn keeping(workers: &[&FakeWorker]) -> Keeping {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::at(&url::Url::from_directory_path(folder.path()).unwrap()).unwrap();
    let jobs = Jobs::new(JobsConfig::default(), Arc::new(MemoryStore::default()), blobs);
    let front =
        Front::start_keeping(workers.iter().map(|worker| worker.address.clone()).collect(), jobs).await;
    front.wait_for_workers(workers.len()).await;
    let client = Client::connect(&front.grpc).await.unwrap();
    Keeping { front, client, _folder: folder }
}

fn items(count: usize) -> Vec<JobItem> {
    let text = |index: usize| Some(job_item::Prompt::Text(format!("{}+1=", index % 10)));
    (0..count).map(|index| JobItem { prompt: text(index), ..JobItem::default() }).collect()
}

#[tokio::test]
async fn a_jobs_items_are_generated_with_low_priority_and_seeds_of_their_own() {
    let worker = FakeWorker::start(Script::says("42")).await;
    let Keeping { client, front, .. } = &keeping(&[&worker]).await;
    let options = GenerateOptions { max_tokens: Some(2), ..GenerateOptions::default() };
    let (stop, parameters) = options.into_parameters();
    let spec = JobSpec { parameters: Some(parameters), stop, ..JobSpec::default() };
    let mut items = items(70);
    items[3].id = "third".into();
    let accepted = client.submit_job(spec, stream::iter(items)).await.unwrap();
    assert_eq!((accepted.items, accepted.model.as_str()), (70, "demo"));
    let jobs: Vec<_> = client.watch_job(&accepted.id).await.unwrap().try_collect().await.unwrap();
    let last = jobs.last().unwrap();
    assert_eq!((last.state(), last.succeeded, last.completion_tokens), (JobState::Succeeded, 70, 140));
    assert_eq!(last.core_iterations, 70 * 9, "depths are 4 and 5");
    let results: Vec<_> = client.job_results(&last.id, "").await.unwrap().try_collect().await.unwrap();
    assert_eq!(results.len(), 70);
    assert_eq!((results[3].0.id.as_str(), results[4].0.id.as_str()), ("third", "4"));
    let Some(item_result::Outcome::Answer(answer)) = &results[5].0.outcome else { panic!("no answer") };
    assert_eq!((answer.text.as_str(), answer.depths.as_slice()), ("42", [4, 5].as_slice()));
    let requests = worker.requests();
    let parameters = |index: usize| requests[index].parameters.clone().unwrap();
    assert!((0..70).all(|index| parameters(index).priority == Some(-10)));
    let mut seeds: Vec<_> = (0..70).map(|index| parameters(index).sampling.unwrap().seed.unwrap()).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 70);
    let behind = client.job_results(&last.id, &results[67].1).await.unwrap();
    assert_eq!(behind.map(|result| result.unwrap().0.index).collect::<Vec<_>>().await, [68, 69]);
    let metrics = front.get("/metrics").await.1;
    assert!(metrics.contains("windlass_job_items_total{outcome=\"answered\"}"), "{metrics}");
}

#[tokio::test]
async fn what_a_busy_or_lost_worker_refused_is_done_again() {
    let but = |number| match number {
        3 => Otherwise::Refused,
        5 => Otherwise::Lost,
        _ => Otherwise::No,
    };
    let worker = FakeWorker::start(Script { but, ..Script::says("7") }).await;
    let Keeping { client, .. } = &keeping(&[&worker]).await;
    let job = client.submit_job(JobSpec::default(), stream::iter(items(10))).await.unwrap();
    let jobs: Vec<_> = client.watch_job(&job.id).await.unwrap().try_collect().await.unwrap();
    assert_eq!((jobs.last().unwrap().succeeded, jobs.last().unwrap().failed), (10, 0));
    assert!(worker.requests().len() >= 12);
}

#[tokio::test]
async fn a_job_whose_model_is_away_holds_up_no_other() {
    let (worker, away) =
        tokio::join!(FakeWorker::start(Script::says("7")), FakeWorker::start(Script::says("7")));
    away.turn_to("other", "b");
    let Keeping { client, front, .. } = &keeping(&[&worker, &away]).await;
    away.seen.draining.store(true, Ordering::SeqCst);
    front.wait_for_workers(1).await;
    let of = |model: &str| JobSpec { model: model.into(), ..JobSpec::default() };
    // More than is worked on at once.
    let waiting = client.submit_job(of("other"), stream::iter(items(200))).await.unwrap();
    let job = client.submit_job(of("demo"), stream::iter(items(10))).await.unwrap();
    eventually(|| async { client.get_job(&job.id).await.unwrap().state() == JobState::Succeeded }).await;
    assert_eq!(client.get_job(&waiting.id).await.unwrap().state(), JobState::Queued);
}

#[tokio::test]
async fn an_item_that_is_at_fault_carries_its_error() {
    let worker = FakeWorker::start(Script::says("7")).await;
    let Keeping { client, .. } = &keeping(&[&worker]).await;
    let mut items = items(3);
    items[1].stop = vec![String::new()];
    let job = client.submit_job(JobSpec::default(), stream::iter(items)).await.unwrap();
    let results: Vec<_> = client.job_results(&job.id, "").await.unwrap().try_collect().await.unwrap();
    let Some(item_result::Outcome::Error(error)) = &results[1].0.outcome else { panic!("no error") };
    assert_eq!(error.code, "invalid_request");
    assert!(error.message.starts_with("stop: a stop string is empty"), "{}", error.message);
    assert!(matches!(results[2].0.outcome, Some(item_result::Outcome::Answer(_))));
}

#[tokio::test]
async fn errors_are_told_apart() {
    let worker = FakeWorker::start(Script::says("7")).await;
    let Keeping { client, .. } = &keeping(&[&worker]).await;
    let none = client.submit_job(JobSpec::default(), stream::empty()).await.unwrap_err();
    assert!(
        matches!(&none, ClientError::InvalidArgument { field: Some(field), .. } if field == "item"),
        "{none:?}"
    );
    let spec = JobSpec { model: "other".into(), ..JobSpec::default() };
    let other = client.submit_job(spec, stream::iter(items(1))).await.unwrap_err();
    assert!(matches!(other, ClientError::NotFound { .. }), "{other:?}");
    let spec = JobSpec { stop: vec!["x".into(); 17], ..JobSpec::default() };
    let stops = client.submit_job(spec, stream::iter(items(1))).await.unwrap_err();
    assert!(stops.to_string().contains("stop: 17 stop strings are too many"), "{stops}");
    assert!(client.list_jobs(None, "").await.unwrap().0.is_empty());
    let unknown = client.get_job("x").await.unwrap_err();
    assert!(matches!(unknown, ClientError::NotFound { .. }), "{unknown:?}");
    let watched = client.watch_job("x").await.err().unwrap();
    assert!(matches!(watched, ClientError::NotFound { .. }), "{watched:?}");
    let front = Front::ready(&[&worker]).await;
    let keeps_none = Client::connect(&front.grpc).await.unwrap().list_jobs(None, "").await.unwrap_err();
    assert!(keeps_none.to_string().contains("keeps no jobs: set jobs_dir"), "{keeps_none}");
}

#[tokio::test]
async fn a_stop_gives_claims_back_and_ends_streams() {
    let but = |_| Otherwise::Waits;
    let worker = FakeWorker::start(Script { but, ..Script::says("7") }).await;
    let Keeping { client, front, _folder } = keeping(&[&worker]).await;
    let job = client.submit_job(JobSpec::default(), stream::iter(items(3))).await.unwrap();
    let mut results = Box::pin(client.job_results(&job.id, "").await.unwrap());
    eventually(|| async { worker.requests().len() == 3 }).await;
    let (stopped, ended) = tokio::join!(front.stop(), results.next());
    stopped.unwrap();
    assert!(matches!(ended, Some(Err(ClientError::Unavailable { .. }))), "{ended:?}");
}
