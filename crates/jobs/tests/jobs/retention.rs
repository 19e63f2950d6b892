//! Jobs that ended long enough ago go, with everything that was theirs.

use std::time::Duration;

use windlass_proto::v1::JobSpec;

use crate::answers::items;
use crate::world::{World, ended, for_seeds, submit, submit_items};

#[test]
fn ended_jobs_are_deleted_in_time_and_open_ones_never() {
    for_seeds(1, |seed| async move {
        let mut world = World::new(seed);
        let jobs = world.jobs();
        let spec = JobSpec { idempotency_key: Some("k".into()), ..JobSpec::default() };
        let old = submit_items(&jobs, spec, items(70)).await.unwrap();
        let process = world.process(0);
        ended(&jobs, &old.id).await;
        tokio::time::sleep(Duration::from_secs(1000)).await;
        assert!(jobs.get(&old.id).await.is_ok(), "without a retention all are kept");
        process.kill().await;
        let open = submit(&jobs, 70).await;
        world.config.retention = Some(Duration::ZERO);
        // It deletes, and answers nothing.
        let deleting = world.jobs();
        let _answers =
            tokio::spawn(async move { deleting.run(NoAnswers::new(), std::future::pending()).await });
        while jobs.get(&old.id).await.is_ok()
            || world.objects().await.iter().any(|name| name.contains(&old.id))
        {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        assert!(jobs.get(&open.id).await.is_ok());
        assert_eq!(world.keys("keys/").await, [""; 0]);
        assert!(world.keys("done/").await.is_empty());
    });
}

struct NoAnswers;

impl NoAnswers {
    fn new() -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self)
    }
}

#[async_trait::async_trait]
impl windlass_jobs::Execute for NoAnswers {
    fn can_answer(&self, _: &str) -> bool {
        true
    }

    async fn execute(
        &self,
        _: windlass_jobs::Task,
    ) -> Result<windlass_proto::v1::ItemAnswer, windlass_jobs::ExecuteError> {
        std::future::pending().await
    }
}
