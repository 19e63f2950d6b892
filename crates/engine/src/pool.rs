//! Exact accounting of ids handed out: K/V blocks, rows of the latent buffer.

/// A fixed set of ids, each free or taken. Ids can be promised before they are taken, so that what was admitted never
/// runs out half way.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Vec<u32>,
    taken: Vec<bool>,
    /// Free ids promised to someone.
    reserved: usize,
}

impl Pool {
    /// Ids `0..total`, all free.
    pub(crate) fn new(total: usize) -> Self {
        Self { free: (0..total as u32).rev().collect(), taken: vec![false; total], reserved: 0 }
    }

    pub(crate) fn total(&self) -> usize {
        self.taken.len()
    }

    pub(crate) fn used(&self) -> usize {
        self.taken.len() - self.free.len()
    }

    /// Ids that are neither taken nor promised.
    pub(crate) fn available(&self) -> usize {
        self.free.len() - self.reserved
    }

    /// Promises `count` ids, or does nothing and returns false.
    pub(crate) fn reserve(&mut self, count: usize) -> bool {
        let fits = count <= self.available();
        if fits {
            self.reserved += count;
        }
        fits
    }

    /// Gives back promises that were not used.
    pub(crate) fn unreserve(&mut self, count: usize) {
        assert!(count <= self.reserved, "gave back {count} promises of {}", self.reserved);
        self.reserved -= count;
    }

    /// Takes one promised id.
    pub(crate) fn take(&mut self) -> u32 {
        assert!(self.reserved > 0, "took an id that was not promised");
        self.reserved -= 1;
        let id = self.free.pop().expect("promised ids are free");
        self.taken[id as usize] = true;
        id
    }

    /// Frees taken ids.
    pub(crate) fn release(&mut self, ids: impl IntoIterator<Item = u32>) {
        for id in ids {
            assert!(std::mem::replace(&mut self.taken[id as usize], false), "id {id} freed twice");
            self.free.push(id);
        }
    }

    /// Whether every id is free and nothing is promised.
    pub(crate) fn is_whole(&self) -> bool {
        self.used() == 0 && self.reserved == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_model::random::{Stream, draw};

    #[test]
    fn freed_ids_are_reused_and_promises_are_kept() {
        let mut pool = Pool::new(3);
        assert!(pool.reserve(2) && !pool.reserve(2));
        let first = pool.take();
        pool.release([first]);
        assert_eq!((pool.available(), pool.used()), (2, 0));
        pool.unreserve(1);
        assert!(pool.is_whole() && pool.reserve(3));
    }

    /// Against a naive oracle: lists of who holds what.
    #[test]
    fn random_operations_keep_the_books_of_a_naive_pool() {
        const TOTAL: usize = 40;
        let mut pool = Pool::new(TOTAL);
        let mut held: Vec<u32> = Vec::new();
        let mut promised = 0;
        for step in 0..20_000 {
            let [what, amount, ..] = draw(9, Stream::Sampling, step, 0);
            let amount = amount as usize % 8;
            match what % 4 {
                0 => {
                    let fits = held.len() + promised + amount <= TOTAL;
                    assert_eq!(pool.reserve(amount), fits);
                    promised += if fits { amount } else { 0 };
                }
                1 if promised > 0 => {
                    let id = pool.take();
                    assert!(!held.contains(&id), "id {id} given to two");
                    held.push(id);
                    promised -= 1;
                }
                2 => pool.release(held.split_off(held.len().saturating_sub(amount))),
                _ => {
                    pool.unreserve(amount.min(promised));
                    promised -= amount.min(promised);
                }
            }
            assert_eq!((pool.used(), pool.available()), (held.len(), TOTAL - held.len() - promised));
        }
    }
}
