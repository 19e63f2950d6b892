//! Limits are refused with what is allowed.

use windlass_proto::v1::{JobSpec, job_item};

use crate::answers::items;
use crate::world::{World, for_seeds, submit, submit_items};

#[test]
fn what_exceeds_a_limit_is_refused_with_the_setting() {
    for_seeds(1, |seed| async move {
        let mut world = World::new(seed);
        world.config.max_items = 100;
        world.config.max_item_bytes = 1000;
        world.config.max_open = 2;
        let jobs = world.jobs();
        let error = submit_items(&jobs, JobSpec::default(), items(101)).await.unwrap_err().to_string();
        assert!(error.contains("item[100]: a job has at most 100 items"), "{error}");
        let mut large = items(3);
        large[1].prompt = Some(job_item::Prompt::Text("x".repeat(2000)));
        let error = submit_items(&jobs, JobSpec::default(), large).await.unwrap_err().to_string();
        assert!(
            error.starts_with("item[1]: it has 20") && error.contains("at most 1000 are allowed"),
            "{error}"
        );
        submit(&jobs, 100).await;
        let second = submit(&jobs, 1).await;
        let error = submit_items(&jobs, JobSpec::default(), items(1)).await.unwrap_err().to_string();
        assert!(error.starts_with("2 jobs have not ended, and the limit (jobs_max_open) is 2"), "{error}");
        jobs.cancel(&second.id).await.unwrap();
        submit(&jobs, 1).await;
        let spec = JobSpec { output_uri: Some("file:///x".into()), ..JobSpec::default() };
        let error = submit_items(&jobs, spec, items(1)).await.unwrap_err().to_string();
        assert!(error.contains("the server's setting jobs_uris allows none"), "{error}");
    });
}
