//! Exact accounting of ids handed out: K/V blocks, rows of the latent buffer.

/// A fixed set of ids, each free or held by one or more.
///
/// An id can be kept: a cache holds it too, and while nobody else does it is idle, to be given up when ids run short.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Vec<u32>,
    /// How many hold each id, the cache included.
    holders: Vec<u32>,
    kept: Vec<bool>,
    /// Ids that only the cache holds.
    idle: usize,
}

impl Pool {
    /// Ids `0..total`, all free.
    pub(crate) fn new(total: usize) -> Self {
        let free = (0..total as u32).rev().collect();
        Self { free, holders: vec![0; total], kept: vec![false; total], idle: 0 }
    }

    pub(crate) fn total(&self) -> usize {
        self.holders.len()
    }

    /// Ids that nobody holds.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Ids that only the cache holds.
    pub(crate) fn idle(&self) -> usize {
        self.idle
    }

    /// Ids held by others than the cache.
    pub(crate) fn used(&self) -> usize {
        self.total() - self.free.len() - self.idle
    }

    /// A free id, if there is one.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let id = self.free.pop()?;
        self.holders[id as usize] = 1;
        Some(id)
    }

    /// Makes one more hold `id`.
    pub(crate) fn share(&mut self, id: u32) {
        self.idle -= usize::from(self.is_idle(id));
        assert!(self.holders[id as usize] > 0, "id {id} is shared and free");
        self.holders[id as usize] += 1;
    }

    /// Makes the cache hold `id`, which somebody holds now.
    pub(crate) fn keep(&mut self, id: u32) {
        assert!(!self.kept[id as usize], "id {id} is kept twice");
        self.share(id);
        self.kept[id as usize] = true;
    }

    /// Takes one holder other than the cache off `id`, which is free when none is left.
    pub(crate) fn release(&mut self, id: u32) {
        assert!(!self.is_idle(id), "id {id} is released by someone who does not hold it");
        let holders = &mut self.holders[id as usize];
        *holders = holders.checked_sub(1).unwrap_or_else(|| panic!("id {id} is freed twice"));
        if *holders == 0 {
            self.free.push(id);
        }
        self.idle += usize::from(self.is_idle(id));
    }

    /// Takes the cache off `id`, which is idle.
    pub(crate) fn give_up(&mut self, id: u32) {
        assert!(self.is_idle(id), "id {id} is in use and given up");
        self.idle -= 1;
        self.kept[id as usize] = false;
        self.holders[id as usize] = 0;
        self.free.push(id);
    }

    /// Whether only the cache holds `id`.
    pub(crate) fn is_idle(&self, id: u32) -> bool {
        self.kept[id as usize] && self.holders[id as usize] == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_model::random::{Stream, draw};

    #[test]
    fn freed_ids_are_reused() {
        let mut pool = Pool::new(2);
        let (first, second) = (pool.take().expect("two are free"), pool.take().expect("one is free"));
        assert_eq!((pool.take(), pool.used()), (None, 2));
        pool.release(first);
        assert_eq!(pool.take(), Some(first));
        [first, second].into_iter().for_each(|id| pool.release(id));
        assert_eq!((pool.free(), pool.used()), (2, 0));
    }

    #[test]
    fn a_kept_id_outlives_its_holders_and_is_given_up_when_idle() {
        let mut pool = Pool::new(1);
        let id = pool.take().expect("one is free");
        pool.keep(id);
        pool.release(id);
        assert_eq!((pool.free(), pool.idle(), pool.used()), (0, 1, 0));
        pool.share(id);
        assert_eq!((pool.free(), pool.idle(), pool.used()), (0, 0, 1));
        pool.release(id);
        pool.give_up(id);
        assert_eq!((pool.free(), pool.idle(), pool.used()), (1, 0, 0));
    }

    #[test]
    #[should_panic(expected = "does not hold it")]
    fn the_cache_s_hold_cannot_be_released_by_a_lane() {
        let mut pool = Pool::new(1);
        let id = pool.take().expect("one is free");
        pool.keep(id);
        pool.release(id);
        pool.release(id);
    }

    /// Against a naive oracle: lists of who holds what.
    #[test]
    fn random_operations_keep_the_books_of_a_naive_pool() {
        const TOTAL: u32 = 40;
        let mut pool = Pool::new(TOTAL as usize);
        let (mut held, mut kept): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        for step in 0..40_000 {
            let [what, which, ..] = draw(9, Stream::Sampling, step, 0);
            let pick = |ids: &[u32]| ids.get(which as usize % ids.len().max(1)).copied();
            let idle: Vec<u32> = kept.iter().copied().filter(|id| !held.contains(id)).collect();
            match what % 6 {
                0 | 1 => {
                    let known: Vec<u32> = held.iter().chain(&kept).copied().collect();
                    match pool.take() {
                        Some(id) => {
                            assert!(!known.contains(&id), "id {id} given to two");
                            held.push(id);
                        }
                        None => assert!((0..TOTAL).all(|id| known.contains(&id)), "a free id is not given"),
                    }
                }
                2 => {
                    if let Some(id) = pick(&[held.as_slice(), &idle].concat()) {
                        pool.share(id);
                        held.push(id);
                    }
                }
                3 => {
                    if let Some(id) = pick(&held).filter(|id| !kept.contains(id)) {
                        pool.keep(id);
                        kept.push(id);
                    }
                }
                4 => {
                    if !held.is_empty() {
                        pool.release(held.swap_remove(which as usize % held.len()));
                    }
                }
                _ => {
                    if let Some(id) = pick(&idle) {
                        pool.give_up(id);
                        kept.retain(|kept| *kept != id);
                    }
                }
            }
            let used = (0..TOTAL).filter(|id| held.contains(id)).count();
            let idle = kept.iter().filter(|id| !held.contains(id)).count();
            assert_eq!((pool.used(), pool.idle()), (used, idle));
            assert_eq!(pool.free(), TOTAL as usize - used - idle);
        }
    }
}
