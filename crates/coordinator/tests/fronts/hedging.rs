//! A second worker for requests whose first says nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use crate::support::{FakeWorker, Front, Otherwise, Script, eventually};

const MUTE: fn(usize) -> Otherwise = |_| Otherwise::Waits;

async fn front(workers: &[&FakeWorker], after_ms: Option<u64>) -> Front {
    let addresses = workers.iter().map(|worker| worker.address.clone()).collect();
    let front = Front::start_with(addresses, |config| {
        config.hedge_after = after_ms.map(Duration::from_millis);
        // A worker that is silent is not lost for it.
        config.heartbeat_timeout = Duration::from_secs(600);
    })
    .await;
    front.wait_for_workers(workers.len()).await;
    front
}

async fn metric(front: &Front, name: &str) -> u64 {
    let page = front.get("/metrics").await.1;
    let line = page.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// Asks until the mute worker was asked too; each answer must be the other's. How many requests that took.
async fn ask_until_the_mute_was_asked(front: &Front, mute: &FakeWorker) -> usize {
    for prompt in 0..1000 {
        let body = json!({"prompt": [prompt % 60], "max_tokens": 2});
        let answer = front.post("/v1/completions", &body);
        let (status, answer) = timeout(Duration::from_secs(60), answer).await.expect("an answer");
        assert_eq!((status, answer["choices"][0]["text"].as_str()), (200, Some("42")), "{answer}");
        if !mute.requests().is_empty() {
            return prompt + 1;
        }
    }
    panic!("the mute worker was never asked");
}

#[tokio::test]
async fn a_second_worker_answers_for_one_that_says_nothing_and_that_one_is_told_to_stop() {
    let mute = FakeWorker::start(Script { but: MUTE, ..Script::says("42") }).await;
    let good = FakeWorker::start(Script::says("42")).await;
    let front = front(&[&mute, &good], Some(20)).await;
    ask_until_the_mute_was_asked(&front, &mute).await;
    let of_hedge = mute.requests().pop().unwrap();
    assert_eq!(good.requests().pop().unwrap(), of_hedge, "both get the same request");
    let started = metric(&front, "windlass_hedges_total").await;
    assert!(started >= 1 && metric(&front, "windlass_hedges_won_total").await >= 1);
}

#[tokio::test]
async fn a_second_worker_answers_for_one_that_is_frozen() {
    let frozen = FakeWorker::start(Script::says("42")).await;
    let good = FakeWorker::start(Script::says("42")).await;
    let front = front(&[&frozen, &good], Some(20)).await;
    frozen.freeze();
    ask_until_the_mute_was_asked(&front, &frozen).await;
    frozen.thaw();
}

#[tokio::test]
async fn a_request_is_hedged_once_and_waits_for_the_first_of_both() {
    let mutes = [
        FakeWorker::start(Script { but: MUTE, ..Script::says("42") }).await,
        FakeWorker::start(Script { but: MUTE, ..Script::says("42") }).await,
        FakeWorker::start(Script { but: MUTE, ..Script::says("42") }).await,
    ];
    let front = front(&[&mutes[0], &mutes[1], &mutes[2]], Some(20)).await;
    let body = json!({"prompt": "1"});
    let asked = || mutes.iter().map(|mute| mute.requests().len()).sum::<usize>();
    {
        let answer = front.send("/v1/completions", &body);
        let two_are_asked = eventually(|| async { asked() == 2 });
        tokio::pin!(answer);
        tokio::select! {
            _ = &mut answer => panic!("nobody said anything"),
            () = two_are_asked => {}
        }
        // Several times what the hedge takes to begin.
        assert!(timeout(Duration::from_millis(200), &mut answer).await.is_err());
        assert_eq!(asked(), 2);
    }
}

#[tokio::test]
async fn without_the_setting_a_slow_worker_is_waited_for() {
    let slow = FakeWorker::start(Script::says("42")).await;
    let good = FakeWorker::start(Script::says("42")).await;
    let front = front(&[&slow, &good], None).await;
    slow.freeze();
    let thaw = async {
        eventually(|| async { !slow.requests().is_empty() }).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        slow.thaw();
    };
    let ((), asked) = tokio::join!(thaw, ask_until_the_mute_was_asked(&front, &slow));
    assert_eq!(slow.requests().len() + good.requests().len(), asked, "nothing was asked twice");
    assert_eq!(slow.seen.aborted.load(Ordering::SeqCst), 0);
}
