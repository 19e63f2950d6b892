//! A job belongs to the API key that submitted it.

use std::sync::Arc;

use futures::stream::{self, TryStreamExt};
use windlass_client::{Client, ClientError, GenerateOptions, Job, JobItem, JobSpec};
use windlass_coordinator::CoordinatorConfig;
use windlass_jobs::{Blobs, Jobs, JobsConfig};
use windlass_proto::v1::job_item;
use windlass_store::MemoryStore;

use super::{KeyFile, client, entry};
use crate::support::{FakeWorker, Front, Script};

/// A front that keeps jobs in memory and asks for these keys.
async fn keeping(worker: &FakeWorker, keys: &KeyFile) -> (Front, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::at(&url::Url::from_directory_path(folder.path()).unwrap()).unwrap();
    let jobs = Jobs::new(JobsConfig::default(), Arc::new(MemoryStore::default()), blobs);
    let mut config = CoordinatorConfig::new(vec![worker.address.clone()]);
    config.api_keys_file = Some(keys.path.clone());
    let front = Front::start_keeping_with(config, jobs).await;
    front.wait_for_workers(1).await;
    (front, folder)
}

async fn submit(client: &Client, spec: JobSpec) -> Result<Job, ClientError> {
    let prompt = Some(job_item::Prompt::Text("1+1=".into()));
    client.submit_job(spec, stream::iter([JobItem { prompt, ..JobItem::default() }])).await
}

#[tokio::test]
async fn a_job_is_its_keys_and_an_admins() {
    let worker = FakeWorker::start(Script::says("42")).await;
    let keys = KeyFile::with("mine", "");
    keys.write(&(entry("mine", false) + &entry("other", false) + &entry("operator", true)));
    let (front, _folder) = keeping(&worker, &keys).await;
    let [mine, other, operator] = [
        client(&front, Some("wl-mine")).await,
        client(&front, Some("wl-other")).await,
        client(&front, Some("wl-operator")).await,
    ];
    let job = submit(&mine, JobSpec::default()).await.unwrap();
    assert_eq!(job.owner, "mine");
    let id = &job.id;
    let is_hidden = |error: ClientError| matches!(error, ClientError::NotFound { .. });
    assert!(is_hidden(other.get_job(id).await.unwrap_err()));
    assert!(is_hidden(other.cancel_job(id).await.unwrap_err()));
    assert!(is_hidden(other.job_results(id, "").await.err().unwrap()));
    assert!(is_hidden(other.watch_job(id).await.err().unwrap()));
    assert!(other.list_jobs(None, "").await.unwrap().0.is_empty());
    for sees in [&mine, &operator] {
        assert_eq!(sees.list_jobs(None, "").await.unwrap().0.len(), 1);
        let results: Vec<_> = sees.job_results(id, "").await.unwrap().try_collect().await.unwrap();
        assert_eq!(results.len(), 1);
    }
    let page = front.get("/metrics").await.1;
    assert!(page.contains("windlass_key_tokens_total{key=\"mine\"} 7"), "5 prompt and 2 generated: {page}");
    assert_eq!(operator.cancel_job(id).await.unwrap().succeeded, 1);
}

#[tokio::test]
async fn a_keys_limits_hold_for_its_jobs() {
    let worker = FakeWorker::start(Script::says("42")).await;
    let keys = KeyFile::with("mine", "priority_max = 0\nmax_open_jobs = 1\n");
    let (front, _folder) = keeping(&worker, &keys).await;
    let mine = client(&front, Some("wl-mine")).await;
    let urgent = JobSpec { priority: Some(1), ..JobSpec::default() };
    let refused = submit(&mine, urgent).await.unwrap_err().to_string();
    assert!(refused.starts_with("priority: 1 is above what this API key may ask for"), "{refused}");
    let options = GenerateOptions {
        depth: Some(windlass_client::Depth::Effort("xx".into())),
        ..GenerateOptions::default()
    };
    let (stop, parameters) = options.into_parameters();
    let spec = JobSpec { parameters: Some(parameters), stop, ..JobSpec::default() };
    let unknown = submit(&mine, spec).await.unwrap_err().to_string();
    assert_eq!(unknown, "effort: 'xx' is not an effort of this model: use one of high");
    submit(&mine, JobSpec::default()).await.unwrap();
}
