//! Results can be read while they come about, and on from any of them.

use futures::stream::StreamExt;
use windlass_jobs::Jobs;

use crate::answers::check;
use crate::world::{World, for_seeds, submit};

#[test]
fn a_stream_that_breaks_resumes_without_gap_or_repetition() {
    for_seeds(100, |seed| async move {
        let world = World::new(seed);
        let count = 1 + world.dice.roll(400);
        let jobs = world.jobs();
        let job = submit(&jobs, count).await;
        let mut processes = [Some(world.process(10)), Some(world.process(10)), None];
        let read = async {
            let mut token = String::new();
            let mut next = 0;
            while next < count {
                // Each read is another process's, which breaks off somewhere.
                let jobs = world.jobs_with(5);
                let mut results = Box::pin(jobs.results(&job.id, &token).unwrap());
                for _ in 0..world.dice.roll(150) {
                    let Some(Ok(result)) = results.next().await else { break };
                    check(&result, next);
                    token = Jobs::resume_token(&result);
                    next += 1;
                }
            }
            let mut behind = Box::pin(jobs.results(&job.id, &token).unwrap());
            assert!(behind.next().await.is_none(), "it goes on behind the last item");
        };
        tokio::select! {
            () = read => {}
            () = world.havoc(&mut processes) => {}
        }
    });
}

#[test]
fn what_is_no_token_is_refused() {
    for_seeds(1, |seed| async move {
        let jobs = World::new(seed).jobs();
        let job = submit(&jobs, 1).await;
        let error = jobs.results(&job.id, "x").err().unwrap().to_string();
        assert!(error.starts_with("resume_token: 'x' is none"), "{error}");
        let behind = Box::pin(jobs.results(&job.id, "9999").unwrap()).next().await.unwrap();
        let error = behind.unwrap_err().to_string();
        assert!(error.starts_with("resume_token: '9999' is behind the last of 1 results"), "{error}");
        assert!(Box::pin(jobs.results(&job.id, "0").unwrap()).next().await.is_none());
    });
}
