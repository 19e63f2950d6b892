//! Claims go with the work they are for, and with whoever died.

use std::time::Duration;

use crate::world::{World, ended, for_seeds, submit};

#[test]
fn an_ended_job_leaves_no_claim_and_is_no_longer_open() {
    for_seeds(100, |seed| async move {
        let world = World::new(1000 + seed);
        let jobs = world.jobs();
        let job = submit(&jobs, 1 + world.dice.roll(300)).await;
        let mut processes = [Some(world.process(10)), Some(world.process(10)), None];
        tokio::select! {
            _ = ended(&jobs, &job.id) => {}
            () = world.havoc(&mut processes) => {}
        }
        // Also none that was on its way.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(world.keys("claims/").await, [""; 0]);
        assert_eq!(world.keys("open/").await, [""; 0]);
        assert_eq!(world.keys("submissions/").await, [""; 0]);
    });
}

#[test]
fn claims_of_the_dead_run_out_and_others_take_over() {
    for_seeds(10, |seed| async move {
        let world = World::new(seed);
        let jobs = world.jobs();
        let job = submit(&jobs, 200).await;
        let first = world.process(0);
        while world.keys("claims/").await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        first.kill().await;
        assert!(!world.keys("claims/").await.is_empty(), "the dead cannot give anything back");
        let _second = world.process(0);
        ended(&jobs, &job.id).await;
        assert_eq!(world.keys("claims/").await, [""; 0]);
    });
}
