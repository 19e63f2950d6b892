//! Ranks that are threads of one process.

use std::sync::{Arc, PoisonError, RwLock};

use super::meeting::Meeting;
use super::{Exchange, add_up};

/// One rank's place at the table where all put down what they have. Who drops it leaves the group, and ends it.
#[derive(Debug)]
pub struct Seat {
    rank: usize,
    table: Arc<Table>,
    /// Which of the two turns is next.
    turn: usize,
}

/// Each rank's values, of this turn and of the one before: nobody overwrites what another may still read, because all have met
/// in between.
#[derive(Debug)]
struct Table {
    values: Vec<[RwLock<Vec<f32>>; 2]>,
    meeting: Meeting,
}

/// Places for a group of `ranks`, by rank.
pub fn seats(ranks: usize) -> Vec<Seat> {
    let values = (0..ranks).map(|_| <[RwLock<Vec<f32>>; 2]>::default()).collect();
    let table = Arc::new(Table { values, meeting: Meeting::new(ranks) });
    (0..ranks).map(|rank| Seat { rank, table: Arc::clone(&table), turn: 0 }).collect()
}

impl Seat {
    /// How many ranks there are.
    #[cfg(feature = "cuda-emulator")]
    pub(crate) fn ranks(&self) -> usize {
        self.table.values.len()
    }

    /// Puts `values` on the table, and waits until all have done so. Everyone takes them before putting the next down.
    pub(crate) fn put(&self, values: &[f32]) {
        let own = &self.table.values[self.rank][self.turn];
        {
            let mut own = own.write().unwrap_or_else(PoisonError::into_inner);
            own.clear();
            own.extend_from_slice(values);
        }
        self.table.meeting.wait();
    }

    /// Hands out what is on the table, by rank.
    pub(crate) fn take(&mut self, mut each: impl FnMut(usize, &[f32])) {
        for (rank, of_rank) in self.table.values.iter().enumerate() {
            each(rank, &of_rank[self.turn].read().unwrap_or_else(PoisonError::into_inner));
        }
        self.turn = 1 - self.turn;
    }
}

impl Exchange for Seat {
    fn all_reduce(&mut self, values: &mut [f32]) {
        self.put(values);
        self.take(|rank, of_rank| {
            if rank == 0 {
                assert_eq!(of_rank.len(), values.len(), "ranks differ in what they add up");
                values.copy_from_slice(of_rank);
            } else {
                add_up(values, of_rank);
            }
        });
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.table.meeting.leave(self.rank);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Values whose sum depends on the order in which they are added.
    fn value(rank: usize, round: usize, i: usize) -> f32 {
        [1e8, 1.0, -1e8, 0.125, 3.0][(rank + round + i) % 5]
    }

    fn in_order(ranks: usize, round: usize, i: usize) -> f32 {
        (1..ranks).fold(value(0, round, i), |sum, rank| sum + value(rank, round, i))
    }

    #[test]
    fn every_rank_has_the_sum_in_the_order_of_ranks() {
        for ranks in [1, 2, 3, 5] {
            thread::scope(|scope| {
                for mut seat in seats(ranks) {
                    scope.spawn(move || {
                        for round in 0..200 {
                            let count = 1 + round % 7;
                            let mut values: Vec<f32> =
                                (0..count).map(|i| value(seat.rank, round, i)).collect();
                            seat.all_reduce(&mut values);
                            let expected: Vec<f32> = (0..count).map(|i| in_order(ranks, round, i)).collect();
                            assert_eq!(values, expected);
                        }
                        // Nobody leaves before all are done.
                        seat
                    });
                }
            });
        }
    }

    #[test]
    fn who_waits_for_a_rank_that_left_is_told() {
        let mut seats = seats(3);
        let lost = seats.pop().unwrap_or_else(|| unreachable!());
        thread::scope(|scope| {
            let waiting: Vec<_> =
                seats.into_iter().map(|mut seat| scope.spawn(move || seat.all_reduce(&mut [1.0]))).collect();
            drop(lost);
            for thread in waiting {
                let panic = thread.join().map_err(|panic| panic.downcast::<String>().map(|text| *text));
                assert!(matches!(panic, Err(Ok(text)) if text == "rank 2 is lost, and with it the group"));
            }
        });
    }
}
