//! Where threads wait for each other, again and again, as long as all of them live.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a thread waits awake: longer than ranks usually differ, far shorter than a time slice.
const SPIN: Duration = Duration::from_micros(20);

/// A barrier that can be given up.
#[derive(Debug)]
pub(super) struct Meeting {
    members: usize,
    state: Mutex<State>,
    /// How often all have met; a copy for those who wait awake.
    met: AtomicU64,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    arrived: usize,
    met: u64,
    /// The first who left, if anyone did.
    lost: Option<usize>,
}

impl Meeting {
    pub(super) fn new(members: usize) -> Self {
        Self { members, state: Mutex::default(), met: AtomicU64::new(0), changed: Condvar::new() }
    }

    /// Returns when all members are here.
    ///
    /// # Panics
    /// If one of them has left.
    pub(super) fn wait(&self) {
        let mut state = self.state();
        let before = state.met;
        state.arrived += 1;
        if state.arrived == self.members {
            state.arrived = 0;
            state.met += 1;
            self.met.store(state.met, Ordering::Release);
            drop(state);
            return self.changed.notify_all();
        }
        drop(state);
        let since = Instant::now();
        while since.elapsed() < SPIN {
            if self.met.load(Ordering::Acquire) != before {
                return;
            }
            std::hint::spin_loop();
        }
        let waiting = |state: &mut State| state.met == before && state.lost.is_none();
        let state = self.changed.wait_while(self.state(), waiting).unwrap_or_else(PoisonError::into_inner);
        if let (true, Some(lost)) = (state.met == before, state.lost) {
            drop(state);
            panic!("rank {lost} is lost, and with it the group");
        }
    }

    /// From now on nobody waits in vain.
    pub(super) fn leave(&self, member: usize) {
        self.state().lost.get_or_insert(member);
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
