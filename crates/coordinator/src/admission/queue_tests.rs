use futures::FutureExt;
use futures::future::{BoxFuture, join_all};

use super::*;

fn queue(running_sequences: u32, queued_requests: u32) -> Arc<Queue> {
    let timeout = Duration::from_secs(10);
    Queue::new(QueueLimits {
        running_sequences,
        queued_requests,
        queued_core_iterations: Some(1000),
        timeout,
        has_metrics: false,
    })
}

fn demand(sequences: u32, priority: i32) -> Demand {
    Demand { sequences, core_iterations: 10, priority, deadline: None }
}

type Admitting = BoxFuture<'static, Result<Permit, QueueError>>;

/// Asks, and takes a place in line if need be.
fn ask(queue: &Arc<Queue>, demand: Demand) -> Admitting {
    let queue = Arc::clone(queue);
    let mut admitting = async move { queue.admit(demand).await }.boxed();
    if let Some(done) = (&mut admitting).now_or_never() {
        return std::future::ready(done).boxed();
    }
    admitting
}

fn is_idle(queue: &Queue) -> bool {
    let line = lock(&queue.line);
    (line.pace.running(), line.waiting.len(), line.core_iterations) == (0, 0, 0)
}

#[tokio::test(start_paused = true)]
async fn higher_priorities_go_first_and_equals_in_the_order_they_came() {
    let queue = queue(1, 10);
    let running = queue.admit(demand(1, 0)).await.unwrap();
    let asked = [(0, 0), (1, 5), (2, -3), (3, 5), (4, 0)].map(|(name, priority)| {
        let admitting = ask(&queue, demand(1, priority));
        async move {
            let permit = admitting.await.unwrap();
            (name, permit)
        }
    });
    let order = Arc::new(Mutex::new(Vec::new()));
    let all = asked.into_iter().map(|asked| {
        let order = Arc::clone(&order);
        async move {
            let (name, permit) = asked.await;
            lock(&order).push(name);
            drop(permit);
        }
    });
    let all = tokio::spawn(join_all(all.collect::<Vec<_>>()));
    drop(running);
    all.await.unwrap();
    assert_eq!(*lock(&order), [1, 3, 0, 4, 2]);
    assert!(is_idle(&queue));
}

#[tokio::test(start_paused = true)]
async fn a_small_request_does_not_overtake_a_large_one_of_its_priority() {
    let queue = queue(4, 10);
    let running = queue.admit(demand(3, 0)).await.unwrap();
    let mut large = ask(&queue, demand(2, 0));
    let mut small = ask(&queue, demand(1, 0));
    assert!((&mut large).now_or_never().is_none() && (&mut small).now_or_never().is_none());
    let mut urgent = ask(&queue, demand(1, 1));
    let urgent = (&mut urgent).now_or_never().unwrap().unwrap();
    drop(running);
    let (_large, _small) = (large.await.unwrap(), small.await.unwrap());
    drop(urgent);
}

#[tokio::test(start_paused = true)]
async fn a_full_line_refuses_with_the_time_to_come_back() {
    let queue = queue(1, 1);
    for _ in 0..3 {
        let permit = queue.admit(demand(1, 0)).await.unwrap();
        tokio::time::advance(Duration::from_secs(4)).await;
        drop(permit);
    }
    let _running = queue.admit(demand(1, 0)).await.unwrap();
    let _waiting = ask(&queue, demand(1, 0));
    assert!(queue.expect_room(1, 0).is_err());
    let refused = queue.admit(demand(1, 0)).await.unwrap_err();
    // Each kept the only place for four seconds, and two come first.
    let QueueError::Full { retry_after, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(retry_after, Duration::from_secs(8));
}

#[tokio::test(start_paused = true)]
async fn the_line_is_bounded_in_core_iterations_too() {
    let queue = queue(1, 10);
    let _running = queue.admit(demand(1, 0)).await.unwrap();
    let _waiting = ask(&queue, Demand { core_iterations: 600, ..demand(1, 0) });
    let refused = queue.admit(Demand { core_iterations: 401, ..demand(1, 0) }).await;
    assert!(matches!(refused, Err(QueueError::Full { .. })));
    assert!(ask(&queue, Demand { core_iterations: 400, ..demand(1, 0) }).now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn who_leaves_frees_the_place_and_who_is_behind_moves_up() {
    let queue = queue(1, 2);
    let running = queue.admit(demand(1, 0)).await.unwrap();
    let leaves = ask(&queue, demand(1, 0));
    let stays = ask(&queue, demand(1, 0));
    assert!(queue.expect_room(1, 0).is_err());
    drop(leaves);
    queue.expect_room(1, 0).unwrap();
    drop(running);
    drop(stays.await.unwrap());
    assert!(is_idle(&queue));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_in_the_moment_of_admission_gives_the_right_back() {
    let queue = queue(1, 2);
    let running = queue.admit(demand(1, 0)).await.unwrap();
    let leaves = ask(&queue, demand(1, 0));
    let stays = ask(&queue, demand(1, 0));
    drop(running);
    drop(leaves);
    drop(stays.await.unwrap());
    assert!(is_idle(&queue));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever_nor_past_the_deadline() {
    let queue = queue(1, 10);
    let _running = queue.admit(demand(1, 0)).await.unwrap();
    let began = Instant::now();
    let refused = queue.admit(demand(1, 0)).await.unwrap_err();
    assert!(matches!(refused, QueueError::TimedOut { .. }) && began.elapsed() == Duration::from_secs(10));
    let began = Instant::now();
    let deadline = Some(began + Duration::from_secs(3));
    let refused = queue.admit(Demand { deadline, ..demand(1, 0) }).await.unwrap_err();
    assert!(refused == QueueError::Late && began.elapsed() == Duration::from_secs(3));
    assert_eq!(lock(&queue.line).waiting.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_comes_to_a_full_line_takes_the_place_of_the_last_of_lower_priority() {
    let queue = queue(1, 3);
    let running = queue.admit(demand(1, 0)).await.unwrap();
    let first = ask(&queue, demand(1, 0));
    let early = ask(&queue, demand(1, -5));
    let mut late = ask(&queue, demand(1, -5));
    assert!(queue.expect_room(1, -5).is_err());
    assert!(
        matches!(queue.admit(demand(1, -5)).await, Err(QueueError::Full { .. })),
        "equals displace nobody"
    );
    queue.expect_room(1, 0).unwrap();
    let urgent = ask(&queue, demand(1, 5));
    let displaced = (&mut late).now_or_never().unwrap().unwrap_err();
    assert!(matches!(displaced, QueueError::Displaced { .. }), "{displaced:?}");
    drop(running);
    for admitted in [urgent, first, early] {
        drop(admitted.await.unwrap());
    }
    assert!(is_idle(&queue));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_displaced_where_that_would_not_make_room() {
    let queue = queue(1, 10);
    let _running = queue.admit(demand(1, 0)).await.unwrap();
    let of = |core_iterations, priority| Demand { core_iterations, ..demand(1, priority) };
    let _high = ask(&queue, of(600, 3));
    let mut low = [ask(&queue, of(200, 0)), ask(&queue, of(150, 1))];
    assert!(matches!(queue.admit(of(401, 2)).await, Err(QueueError::Full { .. })));
    assert!(low.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    let mut fits = ask(&queue, of(250, 2));
    assert!((&mut fits).now_or_never().is_none(), "it waits");
    assert!((&mut low[0]).now_or_never().is_some() && (&mut low[1]).now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn who_is_displaced_and_leaves_at_the_same_time_gives_nothing_back() {
    let queue = queue(1, 1);
    let running = queue.admit(demand(1, 0)).await.unwrap();
    let displaced = ask(&queue, demand(1, 0));
    let urgent = ask(&queue, demand(1, 1));
    drop(displaced);
    drop(running);
    drop(urgent.await.unwrap());
    assert!(is_idle(&queue));
}
