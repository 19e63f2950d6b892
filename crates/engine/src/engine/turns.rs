//! Whose launch is next: batches start, wait for blocks, and are collected.

use windlass_model::{Part, Runner};

use super::{Engine, Place};
use crate::batch::Batch;
use crate::event::Event;
use crate::lane::Lane;

impl<R: Runner> Engine<R> {
    /// Evens out how many lanes batches have.
    pub(super) fn level(&mut self) {
        for from in 0..self.batches.len() {
            let to = self.smallest_batch();
            let lanes = |batch: usize| self.batches[batch].lanes.len();
            if self.batches[from].under_way() == 0 && lanes(from) > lanes(to) + 1 {
                let surplus = (lanes(from) - lanes(to)) / 2;
                let keep = lanes(from) - surplus;
                for _ in 0..surplus {
                    let lane = self.batches[from].lanes.remove(keep);
                    self.batches[to].lanes.push(lane);
                }
            }
        }
    }

    pub(super) fn smallest_batch(&self) -> usize {
        let batches = 0..self.batches.len();
        batches.min_by_key(|&batch| self.batches[batch].lanes.len()).expect("there is a batch")
    }

    /// Starts what can be started, and collects what is due.
    pub(super) fn launch(&mut self, events: &mut Vec<Event>) {
        if !self.runs_ahead {
            self.start();
            return self.collect(events);
        }
        let due = self.batches[0].under_way();
        self.start();
        for _ in 0..due {
            self.collect_next(events);
        }
        self.batches[0].depart(&mut self.shared);
        // What nobody waits for is not left behind.
        while self.lanes() == 0 && self.batches[0].under_way() > 0 {
            self.collect_next(events);
        }
    }

    /// Starts a launch of every batch that may, in the order in which they came free.
    ///
    /// A batch that must wait for K/V blocks holds back all behind it, and new lanes: from then on blocks only come free. That
    /// ends its wait, at the latest when nothing else is under way, since then the lane that comes last can always be taken.
    fn start(&mut self) {
        self.lacks_blocks = false;
        let mut turn = 0;
        for _ in 0..self.order.len() {
            let batch = self.order[turn];
            if !self.batches[batch].is_free() || self.batches[batch].lanes.is_empty() {
                turn += 1;
                continue;
            }
            if !self.plan(batch) {
                self.lacks_blocks = true;
                return;
            }
            self.put_last(turn);
            if !self.batches[batch].start(&mut self.shared) && !self.runs_ahead {
                self.batches[batch].depart(&mut self.shared);
            }
        }
    }

    /// Plans a batch's launch. Lanes that come last make room until there are blocks for it; a lane alone always has room, since
    /// its request was accepted. Returns whether there are blocks: while the lane that comes last takes part in a launch, the
    /// batch must wait for that.
    fn plan(&mut self, batch: usize) -> bool {
        self.batches[batch].next_turn();
        loop {
            if self.batches[batch].plan(&self.shared.memory) {
                return true;
            }
            assert!(self.lanes() > 1, "an accepted request does not fit alone");
            let last = self.last_lane(|_| true).expect("several are open");
            if !self.batches[last.batch].is_free() {
                return false;
            }
            self.preempt(last);
        }
    }

    /// Collects launches until a batch is free, or nothing is under way.
    fn collect(&mut self, events: &mut Vec<Event>) {
        while self.batches.iter().any(|batch| batch.under_way() > 0) {
            let (batch, part) = self.collect_next(events);
            if part == Part::Core {
                self.batches[batch].depart(&mut self.shared);
            }
            if self.batches[batch].under_way() == 0 {
                return;
            }
        }
    }

    /// Collects the launch that is done next; returns whose it was, and of which part.
    fn collect_next(&mut self, events: &mut Vec<Event>) -> (usize, Part) {
        let part = self.shared.runner.next_done();
        let is_next = |&turn: &usize| self.batches[self.order[turn]].next_part() == Some(part);
        let turn = (0..self.order.len()).find(is_next).expect("what is done was started");
        let batch = self.put_last(turn);
        match part {
            Part::Core => self.batches[batch].collect_core(&mut self.shared),
            Part::Coda => self.batches[batch].collect_coda(&mut self.shared, events),
        }
        (batch, part)
    }

    /// Puts a batch behind all others; returns which.
    fn put_last(&mut self, turn: usize) -> usize {
        let batch = self.order.remove(turn);
        self.order.push(batch);
        batch
    }

    pub(super) fn lane(&self, Place { batch, lane }: Place) -> &Lane {
        &self.batches[batch].lanes[lane]
    }

    /// Of the lanes in batches that `counts` holds of, the one that comes last: of the lowest priority, the youngest.
    fn last_lane(&self, counts: impl Fn(&Batch) -> bool) -> Option<Place> {
        let batches = self.batches.iter().enumerate().filter(|(_, batch)| counts(batch));
        let places = batches
            .flat_map(|(batch, Batch { lanes, .. })| (0..lanes.len()).map(move |lane| Place { batch, lane }));
        places.max_by_key(|&place| self.lane(place).sequence.turn())
    }

    /// Of the lanes that may leave, the one that comes last.
    pub(super) fn last_free_lane(&self) -> Option<Place> {
        self.last_lane(Batch::is_free)
    }
}
