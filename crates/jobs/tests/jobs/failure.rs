//! A job that never can go on fails and says why; one that cannot now is tried again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use object_store::{ObjectStoreExt, path::Path};
use url::Url;
use windlass_proto::v1::{JobSpec, JobState};

use crate::answers::items;
use crate::world::{World, ended, for_seeds, submit, submit_items};

#[test]
fn a_job_whose_items_are_gone_or_damaged_fails() {
    for_seeds(2, |seed| async move {
        let world = World::new(seed);
        let jobs = world.jobs();
        let job = submit(&jobs, 200).await;
        let part = Path::from(format!("{}/items/00000001", job.id));
        if seed == 0 {
            world.blobs.delete(&part).await.unwrap();
        } else {
            world.blobs.put(&part, vec![0xFF; 10].into()).await.unwrap();
        }
        let other = submit(&jobs, 20).await;
        let _process = world.process(0);
        let failed = ended(&jobs, &job.id).await;
        assert_eq!(failed.state(), JobState::Failed);
        assert!(failed.error.contains("items/00000001"), "{}", failed.error);
        assert_eq!(ended(&jobs, &other.id).await.state(), JobState::Succeeded, "others go on");
    });
}

#[test]
fn a_job_whose_items_may_not_be_read_now_goes_on_later() {
    for_seeds(1, |seed| async move {
        let world = World::new(seed);
        let jobs = world.jobs();
        let job = submit(&jobs, 70).await;
        world.denies.store(true, Ordering::SeqCst);
        let _process = world.process(0);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(jobs.get(&job.id).await.unwrap().state(), JobState::Running, "it is tried again");
        world.denies.store(false, Ordering::SeqCst);
        assert_eq!(ended(&jobs, &job.id).await.state(), JobState::Succeeded);
    });
}

#[test]
fn an_output_that_cannot_be_written_now_is_tried_again() {
    for_seeds(1, |seed| async move {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(seed);
        let url = Url::from_directory_path(folder.path()).unwrap();
        world.config.uris = vec![url.clone()];
        let output_uri = Some(url.join("sub/out.jsonl").unwrap().to_string());
        let jobs = world.jobs();
        let spec = JobSpec { output_uri, ..JobSpec::default() };
        let job = submit_items(&jobs, spec, items(3)).await.unwrap();
        // A folder is in the way of the object.
        std::fs::create_dir_all(folder.path().join("sub/out.jsonl/x")).unwrap();
        let _process = world.process(0);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let job = jobs.get(&job.id).await.unwrap();
        assert_eq!((job.succeeded, job.state()), (3, JobState::Running), "it is tried again");
        std::fs::remove_dir_all(folder.path().join("sub/out.jsonl")).unwrap();
        assert_eq!(ended(&jobs, &job.id).await.state(), JobState::Succeeded);
    });
}
