//! Whether a worker takes requests, and when it hands over those that run.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::notice::{Notice, Reader};

/// Stands for a deadline too far away to be counted.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Whether a worker takes requests. Dropped with its worker.
#[derive(Debug)]
pub(crate) struct Drain {
    intake: Arc<Notice<Intake>>,
    /// Generations under way.
    running: watch::Sender<usize>,
}

/// What a worker does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intake {
    /// It takes them.
    Open,
    /// It takes no more, and hands over those that still run by then.
    Draining { hand_over: Instant },
    /// The same for good: it is about to end.
    Ending { hand_over: Instant },
    /// It ends now.
    Ended,
}

/// The worker takes no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("draining: this worker takes no more requests")]
pub(crate) struct Draining;

/// The worker cannot take requests again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this worker is shutting down: start another")]
pub(crate) struct ShuttingDown;

/// One generation under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Running(watch::Sender<usize>);

/// The drain as one listener sees it.
#[derive(Debug, Clone)]
pub(crate) struct DrainWatch(Reader<Intake>);

impl Default for Drain {
    fn default() -> Self {
        Self { intake: Notice::new(Intake::Open), running: watch::Sender::new(0) }
    }
}

impl Drain {
    /// Counts one more generation, if the worker takes any.
    pub(crate) fn begin(&self) -> Result<Running, Draining> {
        // Counted before it is known whether it may run: so whoever waits for the last one misses none.
        self.running.send_modify(|running| *running += 1);
        let running = Running(self.running.clone());
        if self.intake.get() == Intake::Open { Ok(running) } else { Err(Draining) }
    }

    /// Takes no more requests, and hands over at `deadline` those that still run; a second call sets the deadline anew.
    pub(crate) fn drain(&self, deadline: Duration) {
        let hand_over = after(deadline);
        self.intake.modify(|intake| {
            *intake = match intake {
                Intake::Open | Intake::Draining { .. } => Intake::Draining { hand_over },
                Intake::Ending { .. } => Intake::Ending { hand_over },
                Intake::Ended => Intake::Ended,
            };
        });
    }

    /// Takes requests again, and forgets the hand-over to come.
    pub(crate) fn undrain(&self) -> Result<(), ShuttingDown> {
        self.intake.modify(|intake| match intake {
            Intake::Open | Intake::Draining { .. } => {
                *intake = Intake::Open;
                Ok(())
            }
            Intake::Ending { .. } | Intake::Ended => Err(ShuttingDown),
        })
    }

    /// Drains for good; returns once nothing runs, or `grace` after the hand-over, in case a reader does not read.
    pub(crate) async fn end(&self, deadline: Duration, grace: Duration) {
        let hand_over = after(deadline);
        self.intake.modify(|intake| *intake = Intake::Ending { hand_over });
        let mut running = self.running.subscribe();
        let watch = self.watch();
        let late = async {
            watch.handed_over().await;
            let running = *self.running.borrow();
            if running > 0 {
                tracing::warn!(running, "generations were not finished in time and are handed over");
            }
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            // What ended at the last moment was not late.
            biased;
            _ = running.wait_for(|running| *running == 0) => {}
            () = late => {}
        }
        self.intake.modify(|intake| *intake = Intake::Ended);
    }

    pub(crate) fn watch(&self) -> DrainWatch {
        DrainWatch(self.intake.read())
    }
}

impl DrainWatch {
    /// Whether the worker takes no requests.
    pub(crate) fn is_draining(&self) -> bool {
        self.0.get() != Intake::Open
    }

    /// Returns once what runs is to be handed over.
    pub(crate) async fn handed_over(mut self) {
        loop {
            match self.0.get() {
                Intake::Open => self.0.changed().await,
                Intake::Draining { hand_over } | Intake::Ending { hand_over } => tokio::select! {
                    // The last word counts, also at the last moment.
                    biased;
                    () = self.0.changed() => {}
                    () = sleep_until(hand_over) => return,
                },
                Intake::Ended => return,
            }
        }
    }

    /// Returns after the next change.
    pub(crate) async fn changed(&mut self) {
        self.0.changed().await;
    }

    /// Returns once the worker ends.
    pub(crate) async fn ended(mut self) {
        while self.0.get() != Intake::Ended {
            self.0.changed().await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

fn after(deadline: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(deadline).unwrap_or_else(|| now + FAR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn requests_are_refused_from_drain_to_undrain() {
        let drain = Drain::default();
        drop(drain.begin().unwrap());
        drain.drain(SECOND);
        assert_eq!(drain.begin().unwrap_err(), Draining);
        drain.undrain().unwrap();
        drop(drain.begin().unwrap());
        assert_eq!(*drain.running.borrow(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_deadline_counts_and_undrain_forgets_it() {
        let drain = Drain::default();
        let start = Instant::now();
        let handed_over = tokio::spawn(drain.watch().handed_over());
        drain.drain(SECOND);
        drain.undrain().unwrap();
        tokio::time::sleep(2 * SECOND).await;
        assert!(!handed_over.is_finished());
        drain.drain(Duration::MAX);
        drain.drain(3 * SECOND);
        handed_over.await.unwrap();
        assert_eq!(start.elapsed(), 5 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_waits_for_what_runs_and_no_longer_than_the_deadline() {
        let (drain, start) = (Drain::default(), Instant::now());
        drain.end(SECOND, SECOND).await;
        assert_eq!((start.elapsed(), drain.undrain()), (Duration::ZERO, Err(ShuttingDown)));

        let drain = Drain::default();
        let running = drain.begin().unwrap();
        let watch = drain.watch();
        drain.end(SECOND, SECOND).await;
        assert_eq!(start.elapsed(), 2 * SECOND);
        assert!(
            watch.clone().ended().now_or_never().is_some() && watch.handed_over().now_or_never().is_some()
        );
        drop(running);
    }
}
