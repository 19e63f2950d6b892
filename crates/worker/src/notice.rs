use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A value whose changes wake all who wait, in the order in which they began to: whoever came first goes on first, every time.
/// (Those who wait at tokio's `watch` are woken in random order, and a simulation of it cannot be repeated.)
#[derive(Debug)]
pub(crate) struct Notice<T> {
    /// With the number of changes.
    value: Mutex<(u64, T)>,
    changed: Notify,
}

/// One who waits for changes.
#[derive(Debug, Clone)]
pub(crate) struct Reader<T> {
    notice: Arc<Notice<T>>,
    /// Changes it knows of.
    seen: u64,
}

impl<T: Copy> Notice<T> {
    pub(crate) fn new(value: T) -> Arc<Self> {
        Arc::new(Self { value: Mutex::new((0, value)), changed: Notify::new() })
    }

    pub(crate) fn get(&self) -> T {
        self.value().1
    }

    /// Changes the value and wakes all who wait.
    pub(crate) fn modify<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = {
            let mut value = self.value();
            value.0 += 1;
            change(&mut value.1)
        };
        self.changed.notify_waiters();
        result
    }

    /// A reader that knows the value as it is now.
    pub(crate) fn read(self: &Arc<Self>) -> Reader<T> {
        Reader { notice: Arc::clone(self), seen: self.value().0 }
    }

    fn value(&self) -> MutexGuard<'_, (u64, T)> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Copy> Reader<T> {
    pub(crate) fn get(&self) -> T {
        self.notice.get()
    }

    /// Returns after the next change that it does not know of.
    pub(crate) async fn changed(&mut self) {
        loop {
            // Before the look: it hears of all changes from now on.
            let changed = self.notice.changed.notified();
            let changes = self.notice.value().0;
            if changes != self.seen {
                self.seen = changes;
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn those_who_wait_are_woken_in_the_order_in_which_they_came() {
        let (notice, woken) = (Notice::new(0), Arc::new(Mutex::new(Vec::new())));
        let wait = |number: usize| {
            let (mut reader, woken) = (notice.read(), Arc::clone(&woken));
            tokio::spawn(async move {
                reader.changed().await;
                woken.lock().unwrap().push(number);
            })
        };
        let waiting: Vec<_> = (0..100).map(wait).collect();
        // A runtime comes back to this task before it has begun all of them.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        notice.modify(|value| *value = 1);
        futures::future::join_all(waiting).await;
        assert!(woken.lock().unwrap().iter().copied().eq(0..100));
    }

    #[tokio::test]
    async fn a_change_is_seen_once_however_many_there_were() {
        let notice = Notice::new(0);
        let mut reader = notice.read();
        assert!(reader.changed().now_or_never().is_none());
        notice.modify(|value| *value = 1);
        notice.modify(|value| *value = 2);
        assert!(reader.changed().now_or_never().is_some() && reader.get() == 2);
        assert!(reader.changed().now_or_never().is_none());
    }
}
