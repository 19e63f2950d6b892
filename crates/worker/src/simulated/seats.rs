//! Who has a lane of a simulated engine and who waits for one.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use windlass_engine::{Load, Request, RequestId, SubmitError};

use super::Shared;

/// The higher priority first, then who came first.
type Turn = (Reverse<i32>, u64);

/// Lanes, K/V blocks and the queue for them.
#[derive(Debug)]
pub(super) struct Seats {
    max_lanes: usize,
    max_waiting: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    arrivals: u64,
    waiting: BTreeMap<Turn, Waiter>,
    /// Everything else: `waiting` is filled in when asked for.
    load: Load,
}

#[derive(Debug)]
struct Waiter {
    blocks: usize,
    admitted: oneshot::Sender<()>,
}

/// A request's place, in the queue and then in a lane with all the K/V blocks it can come to need; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    shared: Arc<Shared>,
    turn: Turn,
    blocks: usize,
    rows: usize,
    /// Core iterations owed at most.
    owed: u64,
}

impl Seats {
    pub(super) fn new(max_lanes: usize, max_waiting: usize, blocks_total: usize) -> Self {
        let load = Load { blocks_total, ..Load::default() };
        Self { max_lanes, max_waiting, state: Mutex::new(State { load, ..State::default() }) }
    }

    pub(super) fn blocks_total(&self) -> usize {
        self.state().load.blocks_total
    }

    /// An id for a request that takes no seat.
    pub(super) fn next_id(&self) -> RequestId {
        let mut state = self.state();
        state.arrivals += 1;
        RequestId(state.arrivals - 1)
    }

    pub(super) fn load(&self) -> Load {
        let state = self.state();
        Load { waiting: state.waiting.len(), ..state.load.clone() }
    }

    /// Gives lanes to those who wait, in their turn, as long as the next one fits.
    fn admit(&self, state: &mut State) {
        while let Some(first) = state.waiting.first_entry() {
            let blocks = first.get().blocks;
            let load = &mut state.load;
            if load.running == self.max_lanes || load.blocks_used + blocks > load.blocks_total {
                return;
            }
            load.running += 1;
            load.blocks_used += blocks;
            // Whoever has gone gives the lane back when its seat is dropped.
            let _ = first.remove().admitted.send(());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// A place for the request, and what tells when it has a lane.
    pub(super) fn take(
        shared: &Arc<Shared>,
        request: &Request,
    ) -> Result<(Self, oneshot::Receiver<()>), SubmitError> {
        let seats = &shared.seats;
        let mut state = seats.state();
        if state.waiting.len() >= seats.max_waiting {
            return Err(SubmitError::QueueFull { limit: seats.max_waiting });
        }
        let (admitted, admission) = oneshot::channel();
        let (turn, blocks) = ((Reverse(request.priority), state.arrivals), request.kv_blocks());
        let owed = request.core_iterations_limit();
        state.arrivals += 1;
        state.load.queued_core_iterations += owed;
        state.waiting.insert(turn, Waiter { blocks, admitted });
        seats.admit(&mut state);
        drop(state);
        Ok((Self { shared: Arc::clone(shared), turn, blocks, rows: 0, owed }, admission))
    }

    pub(super) fn id(&self) -> RequestId {
        RequestId(self.turn.1)
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Puts this many of the request's positions in flight; how long `iterations` of them take among all that are.
    pub(super) fn fly(&mut self, rows: usize, iterations: u32) -> Duration {
        let load = &mut self.shared.seats.state().load;
        load.rows = load.rows + rows - std::mem::replace(&mut self.rows, rows);
        self.shared.cost.of(iterations, load.rows)
    }

    /// Counts `positions` as done that took `iterations` in all, of `owed` that were owed.
    pub(super) fn done(&mut self, positions: usize, iterations: u64, owed: u64) {
        let load = &mut self.shared.seats.state().load;
        let owed = owed.min(self.owed);
        self.owed -= owed;
        load.queued_core_iterations -= owed;
        load.prelude_rows_total += positions as u64;
        load.core_rows_total += iterations;
        load.coda_rows_total += positions as u64;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let seats = &self.shared.seats;
        let mut state = seats.state();
        state.load.queued_core_iterations -= self.owed;
        state.load.rows -= self.rows;
        if state.waiting.remove(&self.turn).is_none() {
            state.load.running -= 1;
            state.load.blocks_used -= self.blocks;
        }
        seats.admit(&mut state);
    }
}
