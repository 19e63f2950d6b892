//! Every answer is what it would have been undisturbed, each token once, whatever happens to workers.

use crate::cluster::{Cluster, for_seeds};
use crate::requests::{REQUESTS, UNDISTURBED, ask};

#[test]
fn every_answer_is_what_it_would_have_been_undisturbed() {
    for_seeds("migration", simulate);
}

/// Clients ask as long as there are faults, and check what they hear.
pub(crate) fn simulate(seed: u64) -> String {
    let answers = &*UNDISTURBED;
    let mut cluster = Cluster::new(seed, 1, 3);
    for client in 0..3 {
        cluster.client(&format!("client-{client}"), |way| async move {
            let channel = way.coordinator(0);
            while way.is_disturbed() {
                let index = way.dice.roll(REQUESTS as u64) as usize;
                let answer = ask(&way, &channel, index).await?;
                assert_eq!(answer, answers[index], "of request {index}");
            }
            Ok(())
        });
    }
    cluster.run()
}
