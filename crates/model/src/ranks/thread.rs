//! A rank that is a thread of rank 0's process.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use windlass_kernels::Backend;

use super::device::Device;
use super::follower::{Follower, HeadPart};
use super::{Order, RankLink};

/// Orders that wait; rank 0 is held up by more.
const ORDERS: usize = 2;

/// The way to a rank's thread. The thread ends with it.
pub(super) struct RankThread {
    rank: usize,
    /// Closed when dropped, which ends the thread.
    orders: Option<SyncSender<Arc<Order>>>,
    parts: Receiver<Arc<HeadPart>>,
    thread: Option<JoinHandle<()>>,
}

impl RankThread {
    /// # Panics
    /// If the system refuses the thread.
    pub(super) fn start<B: Backend>(of: &str, rank: usize, device: Device<B>) -> Self {
        let (orders, inbox) = sync_channel::<Arc<Order>>(ORDERS);
        let (outbox, parts) = sync_channel(ORDERS);
        let mut follower = Follower::new(device);
        let obey = move || {
            for order in inbox {
                if let Some(part) = follower.obey(&order) {
                    // Rank 0 may have gone.
                    let _ = outbox.send(part);
                }
            }
        };
        let thread = thread::Builder::new()
            .name(format!("{of}-rank-{rank}"))
            .spawn(obey)
            .expect("the thread of a rank");
        Self { rank, orders: Some(orders), parts, thread: Some(thread) }
    }
}

impl RankLink for RankThread {
    fn send(&mut self, order: &Arc<Order>) {
        let sent = self.orders.as_ref().map(|orders| orders.send(Arc::clone(order)));
        assert!(matches!(sent, Some(Ok(()))), "rank {} is lost, and with it the group", self.rank);
    }

    fn receive(&mut self) -> Arc<HeadPart> {
        let part = self.parts.recv();
        part.unwrap_or_else(|_| panic!("rank {} is lost, and with it the group", self.rank))
    }
}

impl Drop for RankThread {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // Its panic has ended the group already.
            let _ = thread.join();
        }
    }
}
