//! Who keeps jobs in one place touches only his own.

use std::sync::Arc;
use std::time::Duration;

use windlass_proto::v1::JobState;

use crate::world::{World, ended, for_seeds, submit};

#[test]
fn jobs_of_others_in_the_same_place_are_left_alone() {
    for_seeds(2, |seed| async move {
        let (world, mut other) = (World::new(seed), World::new(seed));
        other.blobs = Arc::clone(&world.blobs);
        if seed == 1 {
            // A cluster beside the first; else a store of its own, and the same name.
            other.store = world.store.clone();
            other.config.cluster = "second".into();
        }
        let jobs = other.jobs();
        let job = submit(&jobs, 70).await;
        let _process = world.process(0);
        tokio::time::sleep(Duration::from_secs(1000)).await;
        let _process = other.process(0);
        let job = ended(&jobs, &job.id).await;
        assert_eq!(job.state(), JobState::Succeeded, "{}", job.error);
    });
}
