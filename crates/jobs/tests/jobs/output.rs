//! The output is one object of all results in order.

use std::fs;

use url::Url;
use windlass_jobs::result_line;
use windlass_proto::v1::{JobSpec, JobState};

use crate::answers::items;
use crate::world::{World, ended, for_seeds, results, submit_items};

#[test]
fn the_output_has_every_result_once_and_in_order() {
    for_seeds(20, |seed| async move {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(seed);
        world.config.uris = vec![Url::from_directory_path(folder.path()).unwrap()];
        let output = folder.path().join("out/results.jsonl");
        let output_uri = Some(Url::from_file_path(&output).unwrap().to_string());
        let jobs = world.jobs();
        let spec = JobSpec { output_uri, ..JobSpec::default() };
        let job = submit_items(&jobs, spec, items(200)).await.unwrap();
        let mut processes = [Some(world.process(5)), Some(world.process(5)), None];
        tokio::select! {
            job = ended(&jobs, &job.id) => assert_eq!(job.state(), JobState::Succeeded, "{}", job.error),
            () = world.havoc(&mut processes) => {}
        }
        let lines: Vec<_> = results(&jobs, &job.id).await.iter().map(result_line).collect();
        assert_eq!(fs::read_to_string(&output).unwrap().lines().collect::<Vec<_>>(), lines);
        assert_eq!(lines.len(), 200);
    });
}
