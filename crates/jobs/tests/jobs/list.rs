//! Jobs are listed newest first, page by page.

use crate::world::{World, ended, for_seeds, submit};

#[test]
fn jobs_are_listed_newest_first_page_by_page() {
    for_seeds(1, |seed| async move {
        let world = World::new(seed);
        let jobs = world.jobs();
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(submit(&jobs, 1).await.id);
        }
        let process = world.process(0);
        ended(&jobs, &ids[0]).await;
        process.kill().await;
        ids.reverse();
        let mut listed = Vec::new();
        let mut token = String::new();
        loop {
            let (page, next) = jobs.list(Some(2), &token).await.unwrap();
            assert!(page.len() <= 2);
            listed.extend(page.into_iter().map(|job| job.id));
            if next.is_empty() {
                break;
            }
            token = next;
        }
        assert_eq!(listed, ids);
        let error = jobs.list(Some(0), "").await.unwrap_err().to_string();
        assert_eq!(error, "limit: 0 is out of range: use 1 to 1000");
        let error = jobs.list(None, "x").await.unwrap_err().to_string();
        assert_eq!(error, "page_token: 'x' is none: use next_page_token");
    });
}
