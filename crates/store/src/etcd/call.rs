use std::pin::Pin;
use std::time::Duration;

use etcd_client::{Client, Error};
use tokio::time::{Instant, sleep, timeout_at};

use super::connection::Connection;
use super::error::{Fault, fault};
use crate::StoreError;
use crate::jitter::jitter;

/// The pause before a call is repeated.
const PAUSE: Duration = Duration::from_millis(50);
/// How many members that do not answer a call may meet within its time.
const ATTEMPTS: u32 = 3;

/// A call under way.
pub(super) type Call<R> = Pin<Box<dyn Future<Output = Result<R, Error>> + Send>>;

/// When a call that failed may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It does no harm to do it twice.
    Freely,
    /// As long as it did not leave this machine.
    UnlessSent,
}

impl Connection {
    /// Makes a call, again as long as that may help and is allowed, until the time is up.
    ///
    /// A repetition goes to the next member.
    pub(super) async fn call<R>(
        &self,
        repeat: Repeat,
        call: impl Fn(Client) -> Call<R> + Send + Sync,
    ) -> Result<R, StoreError> {
        let end = Instant::now() + self.timeout();
        let mut introduced_anew = false;
        loop {
            let sent_for = match repeat {
                Repeat::Freely => end.min(Instant::now() + self.timeout() / ATTEMPTS),
                Repeat::UnlessSent => end,
            };
            let member = self.member();
            let attempt = async { call(self.client(member).await?).await };
            let fault = match timeout_at(sent_for, attempt).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => fault(&error),
                Err(_) => Fault::Unanswered,
            };
            if !matches!(fault, Fault::Final(_)) {
                self.give_up(member);
            }
            let again = match fault {
                Fault::Unanswered | Fault::Away(_) => repeat == Repeat::Freely,
                Fault::NotSent(_) => true,
                Fault::Stranger(_) => !std::mem::replace(&mut introduced_anew, true),
                Fault::Final(_) => false,
            };
            let pause = PAUSE.mul_f64(jitter());
            if !again || Instant::now() + pause >= end {
                return Err(match fault.into_error(self.timeout()) {
                    StoreError::Unavailable { reason } => {
                        StoreError::Unavailable { reason: format!("{}: {reason}", self.endpoint(member)) }
                    }
                    error => error,
                });
            }
            sleep(pause).await;
        }
    }
}
