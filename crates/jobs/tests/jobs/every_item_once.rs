//! Every item has exactly one result, in order, whoever dies and whatever fails.

use windlass_proto::v1::JobState;

use crate::answers::check;
use crate::world::{World, ended, for_seeds, results, submit};

#[test]
fn whoever_dies_every_item_has_one_result_in_order() {
    for_seeds(200, |seed| async move {
        let world = World::new(seed);
        let jobs = world.jobs();
        let counts = [1 + world.dice.roll(400), 1 + world.dice.roll(100)];
        let submitted = [submit(&jobs, counts[0]).await, submit(&jobs, counts[1]).await];
        let mut processes = [Some(world.process(10)), Some(world.process(10)), None];
        let end = async {
            for job in &submitted {
                let job = ended(&jobs, &job.id).await;
                assert_eq!(job.state(), JobState::Succeeded, "{}", job.error);
            }
        };
        tokio::select! {
            () = end => {}
            () = world.havoc(&mut processes) => {}
        }
        for (job, count) in submitted.iter().zip(counts) {
            let results = results(&jobs, &job.id).await;
            assert_eq!(results.len() as u64, count);
            results.iter().zip(0..).for_each(|(result, index)| check(result, index));
            let job = jobs.get(&job.id).await.unwrap();
            let failed = (0..count).filter(|index| index % 10 == 7).count() as u64;
            assert_eq!((job.succeeded, job.failed), (count - failed, failed));
        }
    });
}

#[test]
fn no_more_items_are_in_flight_than_allowed() {
    for_seeds(3, |seed| async move {
        let mut world = World::new(seed);
        world.config.concurrency = 10;
        let jobs = world.jobs();
        let job = submit(&jobs, 300).await;
        let process = world.process(0);
        ended(&jobs, &job.id).await;
        process.kill().await;
        assert_eq!(world.answers.most_at_once.load(std::sync::atomic::Ordering::SeqCst), 10);
    });
}
